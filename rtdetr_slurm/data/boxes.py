"""Which boxes training learns from, and what the others look like. Standard library only."""

from __future__ import annotations

import math
from array import array
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

from rtdetr_slurm.data.coco import CocoAnnotations

MIN_BOX_SIDE = 1
"""Boxes narrower or lower than this many pixels are not worth learning."""

FEW = 0.01
"""The share of strange boxes that is nothing to mention."""

OVERHANG = 1
"""Annotation tools round: up to this many pixels beyond the image are nothing to mention."""


def training_corners(
    box: Sequence[float], width: float, height: float
) -> tuple[float, float, float, float] | None:
    """What training learns from a box that is no crowd region: the part inside its image.

    Args:
        box: x, y, width, height in pixels.
        width, height: of the image; infinite where they are not known.

    Returns:
        Left, top, right, bottom in pixels; None where less than MIN_BOX_SIDE is left.
    """
    x, y, w, h = box
    left, top = x if x > 0 else 0.0, y if y > 0 else 0.0
    right, bottom = x + w, y + h
    right, bottom = right if right < width else width, bottom if bottom < height else height
    if right - left < MIN_BOX_SIDE or bottom - top < MIN_BOX_SIDE:
        return None
    return left, top, right, bottom


@dataclass
class BoxCounts:
    """The boxes of an annotation file, counted. All but `total` and `crowd` are of single objects.

    Attributes:
        trained: those that training learns from.
        negative, small, outside: those it does not, by the first reason that applies: a side below
            0, a side below MIN_BOX_SIDE, what is inside the image below that.
        tiny: trained ones that are below MIN_BOX_SIDE once the image is resized for the network.
        beyond: those that reach more than OVERHANG pixels out of their image.
        as_shares: those with all four numbers in 0..1.
        as_corners: others that would lie in their image if they were [x0, y0, x1, y1].
        as_centres: those that would if they were [centre x, centre y, width, height].
        fullest: the most that one image holds, and its position; of any size, and of the trained.
    """

    total: int = 0
    crowd: int = 0
    trained: int = 0
    negative: int = 0
    small: int = 0
    outside: int = 0
    tiny: int = 0
    beyond: int = 0
    as_shares: int = 0
    as_corners: int = 0
    as_centres: int = 0
    fullest: tuple[int, int] = (0, 0)
    fullest_trained: tuple[int, int] = (0, 0)

    @property
    def single(self) -> int:
        return self.total - self.crowd


def count_boxes(
    annotations: CocoAnnotations, network_size: tuple[int, int] | None = None
) -> BoxCounts:
    """Count the boxes of a file, with the sizes that it gives for its images.

    Args:
        network_size: (height, width) that images are resized to; None: `tiny` is not counted.
    """
    counts = BoxCounts(total=annotations.num_boxes)
    per_image = array("q", bytes(8 * annotations.num_images))
    trained = array("q", bytes(8 * annotations.num_images))
    network_height, network_width = network_size or (math.inf, math.inf)
    for image, box, crowd in _rows(annotations):
        if crowd:
            counts.crowd += 1
            continue
        per_image[image] += 1
        width: float = annotations.widths[image] or math.inf
        height: float = annotations.heights[image] or math.inf
        x, y, w, h = box
        corners = training_corners(box, width, height)
        if corners is not None:
            trained[image] += 1
            counts.trained += 1
            left, top, right, bottom = corners
            if (right - left) * network_width < MIN_BOX_SIDE * width < math.inf or (
                bottom - top
            ) * network_height < MIN_BOX_SIDE * height < math.inf:
                counts.tiny += 1
        elif w < 0 or h < 0:
            counts.negative += 1
        elif w < MIN_BOX_SIDE or h < MIN_BOX_SIDE:
            counts.small += 1
        else:
            counts.outside += 1
        if x < -OVERHANG or y < -OVERHANG or x + w > width + OVERHANG or y + h > height + OVERHANG:
            counts.beyond += 1
        if 0 <= w <= 1 and 0 <= h <= 1 and 0 <= x <= 1 and 0 <= y <= 1:
            counts.as_shares += 1
        elif 0 <= x < w <= width + OVERHANG and 0 <= y < h <= height + OVERHANG:
            counts.as_corners += 1
        if w <= 2 * x and h <= 2 * y and x + w / 2 <= width and y + h / 2 <= height:
            counts.as_centres += 1
    counts.fullest, counts.fullest_trained = _largest(per_image), _largest(trained)
    return counts


def misread_as(counts: BoxCounts) -> Literal["shares", "corners"] | None:
    """What boxes are that cannot be pixels [x, y, width, height]; None: these may be."""
    if counts.single and counts.as_shares == counts.single:
        return "shares"
    if 2 * counts.beyond > counts.single and counts.as_corners >= 0.99 * counts.single:
        return "corners"
    return None


def misread(counts: BoxCounts) -> str | None:
    """`misread_as` as a sentence."""
    form = misread_as(counts)
    if form == "shares":
        return (
            f"all {counts.single} boxes lie in 0..1: they look like shares of the image's width "
            "and height, as YOLO has them. COCO's are pixels [x, y, width, height]: multiply them"
        )
    if form == "corners":
        return (
            f"{counts.beyond} of {counts.single} boxes reach out of their image: they look like "
            "corners [x0, y0, x1, y1]. COCO's are [x, y, width, height]: take x0 from x1 and y0 "
            "from y1"
        )
    return None


def likely_cause(counts: BoxCounts) -> str:
    """Why boxes are lost or reach out of their image, where one can tell: a sentence to add."""
    if counts.as_shares > FEW * counts.single:
        return (
            f". {counts.as_shares} lie in 0..1, like shares of the image's width and height; "
            "COCO's are pixels"
        )
    if 2 * counts.negative > counts.single:
        return (
            ". They look as if measured from another corner; COCO's are [x, y, width, height] "
            "from the top left one"
        )
    if counts.beyond > 5 * FEW * counts.single and counts.as_centres >= 0.99 * counts.single:
        return (
            ". They look like [centre x, centre y, width, height]; COCO's begin with the left and "
            "upper side: take half of width and height from x and y"
        )
    if 2 * counts.beyond > counts.single:
        return ". They look as if made for images of another size"
    if 2 * counts.crowd > counts.total:
        return (
            ". Tools that write masks set iscrowd to 1 for run lengths; it is for regions of many "
            "objects, and must be 0 for a single one"
        )
    return ""


def _rows(read: CocoAnnotations) -> Iterator[tuple[int, tuple[float, ...], int]]:
    boxes = zip(*(read.boxes[side::4] for side in range(4)), strict=True)
    return zip(read.image_index, boxes, read.crowds, strict=True)


def _largest(counts: Sequence[int]) -> tuple[int, int]:
    """The largest count and where it is."""
    largest = max(counts, default=0)
    return (largest, counts.index(largest)) if largest else (0, 0)
