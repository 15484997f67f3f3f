"""The image file that an annotation means, and what to do about its boxes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from rtdetr_slurm.data.convert.found import Box, FoundImage, Report
from rtdetr_slurm.data.convert.images import ImageFiles, upright_size
from rtdetr_slurm.data.image_sizes import Size

_SAME = 0.01
"""By how much the proportions of an image may differ from the annotated, by rounding."""


@dataclass(frozen=True)
class Located:
    """An image that was found.

    Attributes:
        scale: what x and y of its boxes are multiplied by, since it has another size than they
            were made for.
    """

    image: FoundImage
    scale: tuple[float, float] = (1.0, 1.0)

    def placed(self, box: Box) -> Box:
        across, down = self.scale
        return box[0] * across, box[1] * down, box[2] * across, box[3] * down


def locate(
    names: Sequence[str],
    stated: Size,
    annotations: Path,
    files: ImageFiles,
    report: Report,
    *,
    split: str = "",
) -> Located | None:
    """Find an image; None: it is left out, or a problem, and the report says so.

    Args:
        names: what it may be called, the one that the annotations say first.
        stated: its size as annotated; 0 where they do not say.
        annotations: the file that names it.
        split: of the file.
    """
    found = next(filter(None, (files.find(n, annotations.parent, split) for n in names)), [])
    where = f"{names[0]!r} of {annotations}"
    if len(found) > 1:
        report.problem(f"{annotations}: {names[0]!r} may be {found[0]} or {found[1]}")
        return None
    size = upright_size(found[0]) if found else None
    if size is None:
        report.changed("image that is missing or cannot be read: left out", where)
        return None
    if not str(found[0]).endswith(names[0]):
        report.changed("image of another path or name than annotated: taken", where)
    image = FoundImage(found[0], *size)
    if 0 in stated:
        report.changed("image without width or height: looked up", where)
    elif stated != size:
        if abs(size[0] * stated[1] / (size[1] * stated[0]) - 1) > _SAME:
            report.changed(
                "image of other proportions than annotated, so that its boxes are elsewhere: left "
                "out",
                f"{where}, {stated[0]} x {stated[1]} in place of {size[0]} x {size[1]}",
            )
            return None
        report.changed("image of another size than annotated: its boxes are scaled", where)
        return Located(image, (size[0] / stated[0], size[1] / stated[1]))
    return Located(image)
