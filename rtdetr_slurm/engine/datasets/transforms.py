"""Training augmentation, after RT-DETR's recipe (Zhao et al. 2023)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from rtdetr_slurm.data.pixels import BadImage, ImageFile
from rtdetr_slurm.engine.datasets.colours import draw_colours
from rtdetr_slurm.engine.datasets.geometry import (
    ZOOM_OUT_PROBABILITY,
    Boxes,
    Placement,
    Rectangle,
    place,
)
from rtdetr_slurm.engine.datasets.mosaic import Tile, join
from rtdetr_slurm.vision.boxes import normalise_boxes
from rtdetr_slurm.vision.preprocess import as_tensor
from rtdetr_slurm.vision.samples import NOTHING

if TYPE_CHECKING:
    from rtdetr_slurm.spec.dataset import AugmentationConfig


@dataclass(frozen=True)
class Augmented:
    """A training image; see `vision.samples.Sample`.

    Attributes:
        kept: bool [T], which boxes those are.
    """

    pixels: Tensor
    boxes: Tensor
    colours: Tensor
    kept: NDArray[np.bool_]


@dataclass(frozen=True)
class Piece:
    """The image of a tile of a mosaic.

    Attributes:
        part: what is seen of it.
        boxes: corners in pixels of the network's input, of those that are kept.
        kept: bool [T], which boxes those are.
    """

    placement: Placement
    part: Image.Image
    boxes: Boxes
    kept: NDArray[np.bool_]


class Augment:
    """Distort colours, zoom out, crop, flip, resize; boxes follow.

    All draws of a call come from its own seed.

    Args:
        plain: flip and resize, and nothing else.
    """

    def __init__(self, cfg: AugmentationConfig, *, plain: bool = False) -> None:
        height, width = cfg.train_spatial_size
        self.size = width, height
        self.distortion = 0.0 if plain else cfg.distortion_prob
        self.zoom, self.crop = (0.0, 0.0) if plain else (ZOOM_OUT_PROBABILITY, cfg.iou_crop_prob)

    def __call__(
        self, file: ImageFile, boxes: NDArray[np.float32], seed: int
    ) -> Augmented | BadImage:
        """Decode and augment one image.

        Args:
            boxes: corners in pixels [T, 4].
        """
        draw = np.random.default_rng(seed)
        placement, corners, kept = place(
            draw, file.size, boxes.astype(np.float64), self.size, self.zoom, self.crop
        )
        decoded = _decode(file, placement)
        if isinstance(decoded, BadImage):
            return decoded
        image, shrunk = decoded
        drawn = placement.draw(image, shrunk)
        return self._finish(draw, drawn, image, placement.shown, corners, kept)

    def piece(self, file: ImageFile, boxes: NDArray[np.float32], tile: Tile) -> Piece | BadImage:
        """Decode one image of a mosaic.

        Args:
            boxes: corners in pixels [T, 4].
        """
        placement = tile.place(file.size)
        decoded = _decode(file, placement)
        if isinstance(decoded, BadImage):
            return decoded
        corners, kept = placement.move_seen(boxes.astype(np.float64))
        return Piece(placement, placement.part(*decoded), corners[kept], kept)

    def mosaic(self, draw: np.random.Generator, pieces: Sequence[Piece]) -> Augmented:
        """The pieces in one image, whose colours are distorted together."""
        whole, shown = join([(piece.placement, piece.part) for piece in pieces])
        corners, kept = (
            np.concatenate([getattr(piece, name) for piece in pieces]) for name in ("boxes", "kept")
        )
        return self._finish(draw, whole, whole.crop(shown), shown, corners, kept)

    def _finish(
        self,
        draw: np.random.Generator,
        drawn: Image.Image,
        seen: Image.Image,
        shown: Rectangle,
        corners: Boxes,
        kept: NDArray[np.bool_],
    ) -> Augmented:
        """Draw the distortion of what is seen, and put everything in its final form.

        Args:
            drawn: the network's input.
            seen: what the mean grey is taken of.
            shown: where in the network's input there are images.
        """
        colours = NOTHING
        if self.distortion:
            colours = draw_colours(draw, self.distortion, seen, shown)
        width, height = self.size
        normalised = normalise_boxes(torch.from_numpy(corners), height, width)
        return Augmented(as_tensor(drawn), normalised, colours, kept)


def _decode(file: ImageFile, placement: Placement) -> tuple[Image.Image, int] | BadImage:
    """The image, and by how much it is smaller than the file says."""
    decoded = file.decode(placement.shrink)
    if isinstance(decoded, BadImage):
        return decoded
    return decoded, placement.shrink if decoded.size != file.size else 1
