"""Training augmentation, after RT-DETR's recipe (Zhao et al. 2023), with torchvision v2."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor
from torchvision.transforms import v2
from torchvision.tv_tensors import BoundingBoxes, BoundingBoxFormat, Image

from rtdetr_slurm.data.boxes import MIN_BOX_SIDE
from rtdetr_slurm.vision.boxes import normalise_boxes

if TYPE_CHECKING:
    from rtdetr_slurm.spec.dataset import AugmentationConfig

ZOOM_OUT_PROBABILITY = 0.5


class Augment:
    """Distort colours, zoom out, crop, flip, resize; boxes follow.

    The random numbers of a call come from its own seed and nothing else, and torch's global
    generator is as it was afterwards.
    """

    def __init__(self, cfg: AugmentationConfig) -> None:
        height, width = cfg.train_spatial_size
        self.pipeline = v2.Compose(
            [
                v2.RandomPhotometricDistort(p=cfg.distortion_prob),
                v2.RandomZoomOut(fill=0, p=ZOOM_OUT_PROBABILITY),
                v2.RandomApply([v2.RandomIoUCrop()], p=cfg.iou_crop_prob),
                v2.SanitizeBoundingBoxes(min_size=MIN_BOX_SIDE),
                v2.RandomHorizontalFlip(),
                v2.Resize((height, width), antialias=True),
                v2.SanitizeBoundingBoxes(min_size=MIN_BOX_SIDE),
            ]
        )

    def __call__(
        self, pixels: Tensor, boxes: Tensor, labels: Tensor, seed: int
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Augment one image.

        Args:
            pixels: uint8 [3, H, W].
            boxes: float32 [T, 4], left, top, right, bottom in pixels.
            labels: int64 [T].

        Returns:
            uint8 [3, height, width]; boxes float32 [T', 4], cxcywh in 0..1; labels [T'].
        """
        target: dict[str, Any] = {
            "boxes": BoundingBoxes(
                boxes, format=BoundingBoxFormat.XYXY, canvas_size=tuple(pixels.shape[-2:])
            ),
            "labels": labels,
        }
        with torch.random.fork_rng(devices=[]):
            torch.default_generator.manual_seed(seed)
            image, target = self.pipeline(Image(pixels), target)
        return (
            image.as_subclass(Tensor),
            normalise_boxes(target["boxes"].as_subclass(Tensor), *image.shape[-2:]),
            target["labels"],
        )
