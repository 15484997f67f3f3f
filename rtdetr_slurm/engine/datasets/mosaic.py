"""Four images in one, as DEIM has them (Huang et al. 2025): more boxes for one-to-one matching.

Each image fills a quarter of the network's input, stretched as it would fill the whole, and the
four together are scaled and moved. DEIM turns them by up to 10 degrees as well, which is left out:
boxes would no longer fit. Of each image the part that is seen is resized once, to where it goes.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
from PIL import Image

from rtdetr_slurm.data.image_sizes import Size
from rtdetr_slurm.engine.datasets.geometry import FLIP_PROBABILITY, Placement, Rectangle, Window

MOSAIC_PROBABILITY = 0.5
"""Of an image of a dense epoch."""
SCALES = (0.5, 1.5)
LARGEST_SHIFT = 0.1
"""In sides of the network's input, in each direction."""


@dataclass(frozen=True)
class Tile:
    """A quarter of a mosaic.

    Attributes:
        seen: of the image in it, in 0..1 of the image's sides.
        target: where that goes in the network's input, before that is flipped.
        size: of the network's input.
    """

    seen: Window
    target: Rectangle
    size: Size
    flipped: bool

    def place(self, image: Size) -> Placement:
        """Where an image of this size goes."""
        width, height = image
        left, top, right, bottom = self.seen
        source = (left * width, top * height, right * width, bottom * height)
        return Placement(source, self.target, self.size, self.flipped)


def draw_mosaic(draw: np.random.Generator, size: Size) -> list[Tile]:
    """Draw the four tiles of a mosaic, row by row.

    Args:
        size: width and height of the network's input.
    """
    scale = draw.uniform(*SCALES)
    shifts = draw.uniform(-LARGEST_SHIFT, LARGEST_SHIFT, 2)
    flipped = bool(draw.random() < FLIP_PROBABILITY)
    columns, rows = (_halves(side, scale, shift) for side, shift in zip(size, shifts, strict=True))
    return [
        Tile((left, top, right, bottom), (x0, y0, x1, y1), size, flipped)
        for y0, y1, top, bottom in rows
        for x0, x1, left, right in columns
    ]


def join(pieces: Sequence[tuple[Placement, Image.Image]]) -> tuple[Image.Image, Rectangle]:
    """The network's input of a mosaic, and where in it there are images; around them it is black.

    Args:
        pieces: the placement of each tile, and what `Placement.part` makes of its image.
    """
    whole = Image.new("RGB", pieces[0][0].size)
    for placement, part in pieces:
        whole.paste(part, placement.shown[:2])
    lefts, tops, rights, bottoms = zip(*(placement.shown for placement, _ in pieces), strict=True)
    return whole, (min(lefts), min(tops), max(rights), max(bottoms))


def _halves(side: int, scale: float, shift: float) -> list[tuple[int, int, float, float]]:
    """The two tiles along one side: where each starts and ends, and what is seen of its image."""
    middle = side * (0.5 + shift)
    ends = [round(middle + scale * half * side / 2) for half in (-1, 0, 1)]
    halves = []
    for start, end in pairwise(ends):
        first, last = max(start, 0), min(end, side)
        seen = ((first - start) / (end - start), (last - start) / (end - start))
        halves.append((first, last, *seen))
    return halves
