"""Where an image goes in training: zoom-out, IoU crop and flip, drawn before a pixel is touched.

After RT-DETR's recipe (Zhao et al. 2023). What is drawn is one window of a canvas in which the
image lies; the part of the image in that window is resized once, to where it goes. Nothing is
painted that nobody sees: the canvas of a zoom-out may be sixteen times as large as the image.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from rtdetr_slurm.data.boxes import MIN_BOX_SIDE
from rtdetr_slurm.data.image_sizes import Size
from rtdetr_slurm.vision.preprocess import FILTER

ZOOM_OUT_PROBABILITY = 0.5
LARGEST_ZOOM = 4.0
"""The side of the canvas, in sides of the image, at most."""

SMALLEST_CROP = 0.3
"""The side of a crop, in sides of the canvas, at least."""
LEAST_ASPECT, LARGEST_ASPECT = 0.5, 2.0
LEAST_OVERLAPS = (0.0, 0.1, 0.3, 0.5, 0.7, 0.9, 1.0)
"""Of a crop with the box that it overlaps most, one of these; 1: no crop."""
TRIALS = 40
"""Crops that are drawn for one overlap."""

FLIP_PROBABILITY = 0.5

REDUNDANCY = 2
"""An image is decoded at a fraction of its size where that leaves so many pixels for each one
that is wanted, in both directions."""

Rectangle = tuple[int, int, int, int]
"""Left, top, right, bottom in pixels."""
Window = tuple[float, float, float, float]
"""The same, of which the ends need not be whole."""
Boxes = NDArray[np.float64]
"""Corners [T, 4] in pixels."""


@dataclass(frozen=True)
class Placement:
    """The part of an image that is seen, and where it goes.

    Attributes:
        source: in the image.
        target: in the network's input before that is flipped; around it there is black.
        size: width and height of the network's input.
    """

    source: Window
    target: Rectangle
    size: Size
    flipped: bool

    @property
    def shown(self) -> Rectangle:
        """Where the image is in the network's input."""
        left, top, right, bottom = self.target
        width = self.size[0]
        return (width - right, top, width - left, bottom) if self.flipped else self.target

    @property
    def shrink(self) -> int:
        """The fraction of its size, 1 / 1, 2, 4 or 8, that the image may be decoded at."""
        left, top, right, bottom = self.source
        width, height = (REDUNDANCY * side for side in _sides(self.target))
        enough = min((right - left) / width, (bottom - top) / height)
        return max((fraction for fraction in (2, 4, 8) if fraction <= enough), default=1)

    def draw(self, image: Image.Image, shrink: int) -> Image.Image:
        """The network's input; the arguments are those of `part`."""
        seen = self.part(image, shrink)
        if self.target == (0, 0, *self.size):
            return seen
        whole = Image.new("RGB", self.size)
        whole.paste(seen, self.shown[:2])
        return whole

    def part(self, image: Image.Image, shrink: int) -> Image.Image:
        """What is seen of the image, as it is in the network's input, without what is around it.

        Args:
            image: RGB, of 1 / `shrink` of its size; sides rounded up.
        """
        left, top, right, bottom = (side / shrink for side in self.source)
        seen = image.resize(_sides(self.target), FILTER, box=(left, top, right, bottom))
        return seen.transpose(Image.Transpose.FLIP_LEFT_RIGHT) if self.flipped else seen

    def move(self, boxes: Boxes) -> Boxes:
        """Boxes of the image, as they are in the network's input."""
        source, target = np.array(self.source), np.array(self.target)
        scale = (target[2:] - target[:2]) / (source[2:] - source[:2])
        moved: Boxes = np.tile(target[:2] - source[:2] * scale, 2) + boxes * np.tile(scale, 2)
        if self.flipped:
            moved[:, [0, 2]] = self.size[0] - moved[:, [2, 0]]
        return moved

    def move_seen(self, boxes: Boxes) -> tuple[Boxes, NDArray[np.bool_]]:
        """Boxes of the image, cut off where that is, and which of them are large enough."""
        seen = cut_off(boxes, self.source)
        moved = self.move(seen)
        return moved, _large_enough(seen) & _large_enough(moved)


def place(
    draw: np.random.Generator,
    image: Size,
    boxes: Boxes,
    size: Size,
    zoom_probability: float,
    crop_probability: float,
) -> tuple[Placement, Boxes, NDArray[np.bool_]]:
    """Draw where an image goes.

    Args:
        image: its width and height.
        boxes: in the image.
        size: width and height of the network's input.

    Returns:
        The boxes that are kept, in the network's input, and which they are of those given [T].
    """
    width, height = image
    left, top, canvas = 0, 0, image
    if draw.random() < zoom_probability:
        zoom = draw.uniform(1, LARGEST_ZOOM)
        canvas = int(width * zoom), int(height * zoom)
        left = int((canvas[0] - width) * draw.random())
        top = int((canvas[1] - height) * draw.random())
    boxes = boxes + np.array([left, top, left, top])
    window: Rectangle = (0, 0, *canvas)
    kept = np.ones(len(boxes), np.bool_)
    if draw.random() < crop_probability:
        window, kept = crop(draw, canvas, boxes)
    boxes = cut_off(boxes, window)
    kept &= _large_enough(boxes)

    seen = _overlap(window, (left, top, left + width, top + height))
    placement = Placement(
        (seen[0] - left, seen[1] - top, seen[2] - left, seen[3] - top),
        _scaled(seen, window, size),
        size,
        bool(draw.random() < FLIP_PROBABILITY),
    )
    moved = placement.move(boxes - np.array([left, top, left, top]))
    kept &= _large_enough(moved)
    return placement, moved[kept], kept


def crop(
    draw: np.random.Generator, canvas: Size, boxes: Boxes
) -> tuple[Rectangle, NDArray[np.bool_]]:
    """Draw a window of the canvas that overlaps a box as much as drawn, or the whole canvas.

    Returns:
        The window, and of each box whether its centre is inside.
    """
    sides = np.array(canvas)
    centres = (boxes[:, :2] + boxes[:, 2:]) / 2
    while len(boxes):
        least = LEAST_OVERLAPS[draw.integers(len(LEAST_OVERLAPS))]
        if least >= 1:
            break
        numbers = draw.random((TRIALS, 4))
        extents = (sides * (SMALLEST_CROP + (1 - SMALLEST_CROP) * numbers[:, :2])).astype(np.int64)
        starts = ((sides - extents) * numbers[:, 2:]).astype(np.int64)
        ends = starts + extents
        width, height = extents.T
        good = (extents > 0).all(1)
        good &= (LEAST_ASPECT * height <= width) & (width <= LARGEST_ASPECT * height)
        within = (starts[:, None] < centres) & (centres < ends[:, None])
        inside: NDArray[np.bool_] = np.all(within, axis=-1)
        overlaps = np.where(inside, _ious(starts, ends, boxes), -1.0)
        found = np.flatnonzero(good & (overlaps.max(1) >= least))
        if len(found):
            one = found[0]
            return (*starts[one].tolist(), *ends[one].tolist()), inside[one]
    return (0, 0, *canvas), np.ones(len(boxes), np.bool_)


def _ious(starts: NDArray[np.int64], ends: NDArray[np.int64], boxes: Boxes) -> NDArray[np.float64]:
    """IoU of windows [N, 2], their corners, with boxes [T, 4]: [N, T]."""
    shared = np.minimum(ends[:, None], boxes[:, 2:]) - np.maximum(starts[:, None], boxes[:, :2])
    intersection = shared.clip(0).prod(-1)
    areas = (boxes[:, 2:] - boxes[:, :2]).prod(-1)
    ious: NDArray[np.float64] = intersection / (
        (ends - starts).prod(-1)[:, None] + areas - intersection
    ).clip(1e-9)
    return ious


def _overlap(a: Rectangle, b: Rectangle) -> Rectangle:
    return max(a[0], b[0]), max(a[1], b[1]), min(a[2], b[2]), min(a[3], b[3])


def _scaled(seen: Rectangle, window: Rectangle, size: Size) -> Rectangle:
    """Where a part of a window is once that has `size`, in whole pixels, and one at least."""
    spans = []
    for axis in (0, 1):
        scale = size[axis] / (window[axis + 2] - window[axis])
        start = min(round((seen[axis] - window[axis]) * scale), size[axis] - 1)
        end = round((seen[axis + 2] - window[axis]) * scale)
        spans.append((start, max(end, start + 1)))
    (left, right), (top, bottom) = spans
    return left, top, right, bottom


def cut_off(boxes: Boxes, window: Window) -> Boxes:
    """Boxes without what of them is outside of a window."""
    ends = [(window[side % 2], window[side % 2 + 2]) for side in range(4)]
    return np.stack([boxes[:, side].clip(*ends[side]) for side in range(4)], axis=1)


def _sides(rectangle: Rectangle) -> Size:
    return rectangle[2] - rectangle[0], rectangle[3] - rectangle[1]


def _large_enough(boxes: Boxes) -> NDArray[np.bool_]:
    enough: NDArray[np.bool_] = np.all(boxes[:, 2:] - boxes[:, :2] >= MIN_BOX_SIDE, axis=1)
    return enough
