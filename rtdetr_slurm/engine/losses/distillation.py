"""How distillation compares features of the student with those of the teacher."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import torch.nn.functional as F
from torch import Tensor

from rtdetr_slurm.engine.models.types import PaddedTargets
from rtdetr_slurm.vision.boxes import cxcywh_to_xyxy, iou_and_giou

LEAST_WEIGHT = 0.01
"""Of a cell in the objects' mask, before the mask is scaled to 1 at its largest."""


def divergence(student: Tensor, teacher: Tensor) -> Tensor:
    """KL(teacher || student) of the distributions over the channels, mean over the cells.

    Args:
        student, teacher: logits, [B, C, H, W] or [B, N, C].
    """
    channels = channel_dim(student)
    ours, theirs = student.log_softmax(channels), teacher.log_softmax(channels)
    per_cell = F.kl_div(ours, theirs, reduction="none", log_target=True).sum(channels)
    return per_cell.mean()


COMPARISONS: Mapping[str, Callable[[Tensor, Tensor], Tensor]] = {
    "L1": F.l1_loss,
    "L2": F.mse_loss,
    "KL": divergence,
}
"""Of two features of one shape, by the name of the criterion."""


def channel_dim(feature: Tensor) -> int:
    """Where a feature has its channels: 1 in maps [B, C, H, W], -1 in cells [B, N, C]."""
    return 1 if feature.dim() == 4 else -1


def like_map(teacher: Tensor, student: Tensor) -> Tensor:
    """The teacher's feature at the size of the student's map; cells stay as they are."""
    size = student.shape[-2:]
    if student.dim() != 4 or teacher.shape[-2:] == size:
        return teacher
    return F.interpolate(teacher, size, mode="bilinear", align_corners=False)


def object_quality(logits: Tensor, boxes: Tensor, targets: PaddedTargets) -> Tensor:
    """How well each query of the teacher has found an object: the score of its best class times the
    IoU of its box with the nearest box that is annotated; [B, Q].

    Args:
        logits: [B, Q, C], before the sigmoid.
        boxes: [B, Q, 4], cxcywh in 0..1, as the targets' are.
    """
    if targets.size == 0:
        return logits.new_zeros(logits.shape[:2])
    predicted = cxcywh_to_xyxy(boxes)[:, :, None]
    annotated = cxcywh_to_xyxy(targets.boxes)[:, None]
    iou, _ = iou_and_giou(predicted, annotated)
    return logits.sigmoid().amax(-1) * iou.masked_fill(~targets.valid[:, None], 0).amax(-1)


def object_mask(queries: Tensor, quality: Tensor, feature: Tensor) -> Tensor:
    """Where the teacher has found objects, [B, 1, H, W], 1 at its largest in each image.

    Args:
        queries: of the teacher, [B, Q, D].
        quality: of what they found, [B, Q].
        feature: of the teacher, [B, D, H, W].

    A cell's weight is its similarity (cosine) to the queries, summed by their quality. In an image
    without objects all cells have the same.
    """
    wanted = (quality[..., None] * F.normalize(queries, dim=-1)).sum(1)
    similarity = (wanted[..., None, None] * F.normalize(feature, dim=1)).sum(1, keepdim=True)
    weight = similarity.clamp(min=LEAST_WEIGHT)
    return weight / weight.amax((2, 3), keepdim=True)
