"""How far a deployed form of a detector is from the detector itself, on real images."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from itertools import tee
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from rtdetr_slurm.vision.metrics import score_detections
from rtdetr_slurm.vision.onnx_metadata import BOXES, LOGITS
from rtdetr_slurm.vision.samples import Batch
from rtdetr_slurm.vision.scoring import EvaluationData, Predict, detect

Rows = NDArray[np.float64]
"""As `Detected` has them."""

SAME = 1e-3
"""Queries that differ by no more than this, in scores and in coordinates in 0..1, are the same."""


@dataclass(frozen=True)
class Parity:
    """What two detectors make of the same images.

    Queries are chosen by rank, and those whose scores nearly tie swap places between two ways to
    add the same numbers: each is compared with its nearest counterpart. One at the very end of the
    ranking may have none.

    Attributes:
        images: that were looked at.
        queries: of all of them.
        unmatched: queries without a counterpart.
        max_difference: of the others, the largest in any score or coordinate, both in 0..1.
        map_reference, map_other: mAP of the detector and of its other form; NaN without boxes.
    """

    images: int
    queries: int
    unmatched: int
    max_difference: float
    map_reference: float
    map_other: float

    @property
    def map_difference(self) -> float:
        """In points of mAP, where 100 is perfect."""
        return 100 * (self.map_other - self.map_reference)

    def problem(self, max_unmatched: float = 0.01, max_points: float = 0.1) -> str | None:
        """None where both are the same, else in words what is not.

        Args:
            max_unmatched: share of queries.
            max_points: of mAP.
        """
        if self.unmatched > max_unmatched * self.queries:
            return (
                f"{self.unmatched} of {self.queries} detections have no counterpart within {SAME:g}"
            )
        if abs(self.map_difference) > max_points:
            return f"its mAP differs by {self.map_difference:+.2f} points"
        return None

    def as_json(self) -> dict[str, Any]:
        """Plain data with None for NaN."""
        numbers = {
            "max_difference": self.max_difference,
            "mAP_reference": self.map_reference,
            "mAP_other": self.map_other,
            "mAP_difference_points": self.map_difference,
        }
        return {
            "images": self.images,
            "queries": self.queries,
            "unmatched": self.unmatched,
            **{name: None if math.isnan(value) else value for name, value in numbers.items()},
        }


def compare(
    reference: Predict,
    other: Predict,
    batches: Iterable[Batch],
    data: EvaluationData,
    device: torch.device,
) -> Parity:
    """Run both over all images of `data`, which `batches` delivers.

    Args:
        device: where the reference is.
    """
    differences: list[Tensor] = []
    found: tuple[list[Rows], list[Rows]] = ([], [])
    pairs = zip(
        *(
            detect(predict, own, data, device)
            for predict, own in zip((reference, other), tee(batches), strict=True)
        ),
        strict=True,
    )
    for pair in pairs:
        differences.append(
            differences_of(*({LOGITS: one.logits, BOXES: one.boxes} for one in pair))
        )
        for rows, one in zip(found, pair, strict=True):
            rows.append(one.rows)
    each = torch.cat(differences)
    same = each <= SAME
    scores = [
        score_detections(data.table, np.concatenate(rows), data.class_ids).summary["mAP"]
        for rows in found
    ]
    return Parity(
        images=len(data.table),
        queries=len(each),
        unmatched=int((~same).sum()),
        max_difference=float(each[same].max()) if same.any() else math.nan,
        map_reference=scores[0],
        map_other=scores[1],
    )


def differences_of(reference: Mapping[str, Tensor], other: Mapping[str, Tensor]) -> Tensor:
    """[B * Q]: how far each query of the reference is from its nearest counterpart in the other
    output, in scores and coordinates."""
    ours, theirs = (
        torch.cat([one[LOGITS].sigmoid(), one[BOXES]], -1).float().cpu()
        for one in (reference, other)
    )
    return torch.cdist(ours, theirs, p=math.inf).amin(-1).flatten()
