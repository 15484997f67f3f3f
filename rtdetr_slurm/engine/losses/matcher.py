"""Hungarian matching of predictions to targets, for all prediction sets of a step at once."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from scipy.optimize import linear_sum_assignment
from torch import Tensor

from rtdetr_slurm.engine.models.types import PaddedTargets
from rtdetr_slurm.vision.boxes import cxcywh_to_xyxy, iou_and_giou

FOCAL_ALPHA = 0.25
FOCAL_GAMMA = 2.0


@dataclass(frozen=True)
class Matcher:
    """One-to-one assignment of least cost.

    The cost of a pair is a weighted sum of a focal class cost, the L1 distance of the boxes (cxcywh
    in 0..1) and their negative GIoU.
    """

    class_cost: float
    bbox_cost: float
    giou_cost: float

    @torch.no_grad()
    def __call__(self, logits: Tensor, boxes: Tensor, targets: PaddedTargets) -> Tensor:
        """Match every prediction set of every image.

        Args:
            logits: [S, B, Q, C].
            boxes: [S, B, Q, 4].
            targets: of the B images, T slots each.

        Returns:
            int64 [S, B, T] on the device of `logits`: the query of each target, -1 for padded slots
            and where there are more targets than queries.

        The costs of all sets go to the host in one copy, the result comes back in another.
        """
        sets, batch = logits.shape[:2]
        query = np.full((sets, batch, targets.size), -1, dtype=np.int64)
        if targets.size:
            costs = self.costs(logits, boxes, targets).cpu().numpy()
            for image, count in enumerate(targets.counts):
                for index in range(sets):
                    rows, columns = linear_sum_assignment(costs[index, image, :, :count])
                    query[index, image, columns] = rows
        return torch.from_numpy(query).to(logits.device, non_blocking=True)

    def costs(self, logits: Tensor, boxes: Tensor, targets: PaddedTargets) -> Tensor:
        """[S, B, Q, T]; only pairs of the same image. Non-finite costs become very large."""
        labels = targets.labels[None, :, None, :].expand(*logits.shape[:3], -1)
        probability = logits.gather(-1, labels).sigmoid()
        negative = (1 - FOCAL_ALPHA) * probability**FOCAL_GAMMA * -(1 - probability + 1e-8).log()
        positive = FOCAL_ALPHA * (1 - probability) ** FOCAL_GAMMA * -(probability + 1e-8).log()
        _, giou = iou_and_giou(
            cxcywh_to_xyxy(boxes)[..., :, None, :],
            cxcywh_to_xyxy(targets.boxes)[None, :, None, :, :],
        )
        cost = (
            self.class_cost * (positive - negative)
            + self.bbox_cost * _l1(boxes, targets.boxes)
            - self.giou_cost * giou
        )
        worst = torch.finfo(cost.dtype).max
        return cost.nan_to_num(nan=worst, posinf=worst, neginf=worst)


def _l1(boxes: Tensor, targets: Tensor) -> Tensor:
    """[S, B, Q, 4] and [B, T, 4] to [S, B, Q, T]."""
    if boxes.device.type == "cpu":  # twice as fast here; many times slower on CUDA
        return torch.cdist(boxes, targets.expand(len(boxes), -1, -1, -1), p=1)
    return (boxes[..., :, None, :] - targets[None, :, None, :, :]).abs().sum(-1)
