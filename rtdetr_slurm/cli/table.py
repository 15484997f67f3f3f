"""Columns of text, for a thousand rows at once: rich's own tables take half a second for them."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import zip_longest

from rich.cells import cell_len
from rich.text import Text

from rtdetr_slurm.cli.terminal import shown

_GAP = "  "


def table(
    headings: Sequence[str], rows: Sequence[Sequence[str]], styles: Sequence[str], *, coloured: int
) -> Text:
    """Headings and rows, each column as wide as its widest cell; a row may be shorter.

    Args:
        styles: of each row, for its cell number `coloured`.
    """
    cells = [[shown(cell) for cell in row] for row in (headings, *rows)]
    widths = [max(map(cell_len, column)) for column in zip_longest(*cells, fillvalue="")]
    text = Text()
    for row, style in zip(cells, ("bold", *styles), strict=True):
        for number, (cell, width) in enumerate(zip(row, widths, strict=False)):
            here = style if number == coloured or row is cells[0] else ""
            text.append(cell, here)
            text.append(" " * (width - cell_len(cell)) + _GAP if number < len(row) - 1 else "\n")
    return text
