"""Training augmentation, after RT-DETR's recipe (Zhao et al. 2023)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from rtdetr_slurm.data.pixels import BadImage, ImageFile
from rtdetr_slurm.engine.datasets.colours import draw_colours
from rtdetr_slurm.engine.datasets.geometry import place
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


class Augment:
    """Distort colours, zoom out, crop, flip, resize; boxes follow.

    All draws of a call come from its own seed.
    """

    def __init__(self, cfg: AugmentationConfig) -> None:
        height, width = cfg.train_spatial_size
        self.size = width, height
        self.distortion, self.crop = cfg.distortion_prob, cfg.iou_crop_prob

    def __call__(
        self, file: ImageFile, boxes: NDArray[np.float32], seed: int
    ) -> Augmented | BadImage:
        """Decode and augment one image.

        Args:
            boxes: corners in pixels [T, 4].
        """
        draw = np.random.default_rng(seed)
        corners = boxes.astype(np.float64)
        placement, corners, kept = place(draw, file.size, corners, self.size, self.crop)
        decoded = file.decode(placement.shrink)
        if isinstance(decoded, BadImage):
            return decoded
        shrunk = placement.shrink if decoded.size != file.size else 1
        drawn = placement.draw(decoded, shrunk)
        colours = NOTHING
        if self.distortion:
            colours = draw_colours(draw, self.distortion, decoded, placement.shown)
        width, height = self.size
        normalised = normalise_boxes(torch.from_numpy(corners), height, width)
        return Augmented(as_tensor(drawn), normalised, colours, kept)
