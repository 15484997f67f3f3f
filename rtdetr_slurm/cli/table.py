"""Columns of text, for a thousand rows at once: rich's own tables take half a second for them."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import zip_longest

from rich.cells import cell_len
from rich.text import Text

from rtdetr_slurm.cli.terminal import shown

_GAP = "  "


def table(
    headings: Sequence[str], rows: Sequence[Sequence[str]], styles: Sequence[str], *, coloured: str
) -> Text:
    """Headings and rows, each column as wide as its widest cell, without those in which no row has
    anything; a row may be shorter. Nothing where there are no rows.

    Args:
        styles: of each row, for its cell in the column `coloured`.
    """
    if not rows:
        return Text()
    columns = [*zip_longest(*([shown(cell) for cell in row] for row in rows), fillvalue="")]
    used = [
        (heading, cells) for heading, cells in zip(headings, columns, strict=False) if any(cells)
    ]
    widths = [max(map(cell_len, (heading, *cells))) for heading, cells in used]
    text = Text()
    lines = zip(*((heading, *cells) for heading, cells in used), strict=True)
    for line, style in zip(lines, ("bold", *styles), strict=True):
        filled = max((number for number, cell in enumerate(line) if cell), default=0)
        for number, (cell, width) in enumerate(zip(line, widths, strict=True)):
            text.append(cell, style if used[number][0] == coloured or style == "bold" else "")
            text.append(" " * (width - cell_len(cell)) + _GAP if number < filled else "")
        text.append("\n")
    return text
