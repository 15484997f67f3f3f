"""Boxes as COCO has them: in pixels, inside of their image, each once. Standard library only."""

from __future__ import annotations

from rtdetr_slurm.data.convert.found import Box, FoundBox, FoundImage, FoundSplit, Report

_DIGITS = 3
_ROUNDING = 0.5
"""Up to so many pixels beyond the image are nothing to mention."""


def settle(split: FoundSplit, report: Report) -> None:
    """Cut boxes to their images, and leave out those of which nothing is left, and repeats."""
    for image in split.images:
        settled: dict[FoundBox, None] = {}
        for found in image.boxes:
            box = _inside(found.box, image, report)
            if box is None:
                report.changed(
                    "box without width or height in its image: left out", f"{image.file}"
                )
                continue
            area = found.area if box == found.box else None
            entry = FoundBox(found.label, box, found.crowd, area)
            if entry in settled:
                report.changed("box that its image has twice: one is left out", f"{image.file}")
            settled[entry] = None
        image.boxes = [*settled]


def _inside(box: Box, image: FoundImage, report: Report) -> Box | None:
    x, y, w, h = box
    left, top = max(x, 0.0), max(y, 0.0)
    right, bottom = min(x + w, float(image.width)), min(y + h, float(image.height))
    if not (right > left and bottom > top):  # also where a number is none
        return None
    beyond = max(left - x, top - y, x + w - right, y + h - bottom)
    if beyond > _ROUNDING:
        report.changed("box that reaches out of its image: cut", f"{image.file}")
    if beyond > 0:
        x, y, w, h = left, top, right - left, bottom - top
    return round(x, _DIGITS), round(y, _DIGITS), round(w, _DIGITS), round(h, _DIGITS)
