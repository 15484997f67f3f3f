"""Boxes and their overlaps. Everything broadcasts over the leading dimensions."""

from __future__ import annotations

import torch
from torch import Tensor

EPS = 1e-12
"""Smallest area that is divided by: two boxes without any extent overlap by 0, not by NaN."""


def cxcywh_to_xyxy(boxes: Tensor) -> Tensor:
    """[..., 4] centre and size to the two corners."""
    centre, extent = boxes.split(2, dim=-1)
    half = extent * 0.5
    return torch.cat([centre - half, centre + half], dim=-1)


def normalise_boxes(boxes: Tensor, height: float, width: float) -> Tensor:
    """Corners in pixels [T, 4] of an image to float32 cxcywh in 0..1."""
    left, top, right, bottom = boxes.float().unbind(-1)
    centre_and_size = [
        (left + right) / 2 / width,
        (top + bottom) / 2 / height,
        (right - left) / width,
        (bottom - top) / height,
    ]
    return torch.stack(centre_and_size, dim=-1)


def iou_and_giou(a: Tensor, b: Tensor) -> tuple[Tensor, Tensor]:
    """IoU and generalised IoU (Rezatofighi et al. 2019) of boxes in corner form.

    Args:
        a, b: [..., 4], broadcast against each other: equal shapes compare pairs, [..., N, 1, 4]
            with [..., 1, M, 4] compare all with all.

    Returns:
        IoU in 0..1 and GIoU in -1..1, both [...].
    """
    (a_low, a_high), (b_low, b_high) = a.split(2, dim=-1), b.split(2, dim=-1)
    intersection = _area((torch.minimum(a_high, b_high) - torch.maximum(a_low, b_low)).clamp(min=0))
    union = _area(a_high - a_low) + _area(b_high - b_low) - intersection
    hull = _area(torch.maximum(a_high, b_high) - torch.minimum(a_low, b_low))
    iou = intersection / union.clamp(min=EPS)
    return iou, iou - (hull - union) / hull.clamp(min=EPS)


def _area(extent: Tensor) -> Tensor:
    """Of width and height [..., 2]."""
    width, height = extent.unbind(-1)
    return width * height
