"""Boxes and their overlaps. Everything broadcasts over the leading dimensions."""

from __future__ import annotations

import torch
from torch import Tensor

EPS = 1e-12
"""Smallest area that is divided by: two boxes without any extent overlap by 0, not by NaN."""


def cxcywh_to_xyxy(boxes: Tensor) -> Tensor:
    """[..., 4] centre and size to the two corners."""
    centre, half = boxes[..., :2], boxes[..., 2:] * 0.5
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
    ax0, ay0, ax1, ay1 = a.unbind(-1)
    bx0, by0, bx1, by1 = b.unbind(-1)
    width = (torch.minimum(ax1, bx1) - torch.maximum(ax0, bx0)).clamp(min=0)
    height = (torch.minimum(ay1, by1) - torch.maximum(ay0, by0)).clamp(min=0)
    intersection = width * height
    union = (ax1 - ax0) * (ay1 - ay0) + (bx1 - bx0) * (by1 - by0) - intersection
    hull = (torch.maximum(ax1, bx1) - torch.minimum(ax0, bx0)) * (
        torch.maximum(ay1, by1) - torch.minimum(ay0, by0)
    )
    iou = intersection / union.clamp(min=EPS)
    return iou, iou - (hull - union) / hull.clamp(min=EPS)
