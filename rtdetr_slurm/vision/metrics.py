"""COCO's twelve numbers, and each class's AP and precision by recall, equal to pycocotools'."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from hotcoco import COCO, COCOeval
from numpy.typing import NDArray

from rtdetr_slurm.vision.table import Table

NAMES = (
    "mAP",
    "mAP50",
    "mAP75",
    "mAP_small",
    "mAP_medium",
    "mAP_large",
    "mAR_1",
    "mAR_10",
    "mAR_100",
    "mAR_small",
    "mAR_medium",
    "mAR_large",
)
"""The twelve in pycocotools' order. AP is over IoU 0.50:0.95 unless 50 or 75 is said, with at most
100 detections per image; AR_n with at most n; small < 32^2 <= medium < 96^2 <= large pixels."""


@dataclass(frozen=True)
class Metrics:
    """What a set of detections is worth; NaN where there is nothing to measure (no such boxes).

    Attributes:
        summary: NAMES to value.
        per_class: class name to {"AP": ..., "AP50": ...}.
        curves: class name to the highest precision at an IoU of 0.5 and a recall of 0, 0.01 .. 1,
            or a higher recall, float64 [101]: their mean is AP50. Without classes without boxes.
    """

    summary: dict[str, float]
    per_class: dict[str, dict[str, float]]
    curves: dict[str, NDArray[np.float64]]


def score_detections(
    table: Table, detections: NDArray[np.float64], class_ids: Sequence[int] | None = None
) -> Metrics:
    """Compare detections with the ground truth of all images of `table`.

    Args:
        detections: [D, 7]: image position, left, top, width, height (pixels), score, label.
        class_ids: score only these classes; None means all of the table's.
    """
    evaluation = coco_evaluation(table, detections, class_ids)
    chosen = evaluation.params.cat_ids
    values = [_defined(value) for value in evaluation.stats]
    assert evaluation.eval is not None
    precision = evaluation.eval["precision"]  # by IoU, recall, class, area, detections per image
    per_class, curves = {}, {}
    for k, category in enumerate(chosen):
        name, at_all = table.classes[category], precision[:, :, k, 0, -1]
        per_class[name] = {"AP": _mean_defined(at_all), "AP50": _mean_defined(at_all[0])}
        if at_all[0, 0] > -1:
            curves[name] = at_all[0].copy()
    return Metrics(dict(zip(NAMES, values, strict=True)), per_class, curves)


def coco_evaluation(
    table: Table, detections: NDArray[np.float64], class_ids: Sequence[int] | None = None
) -> COCOeval:
    """COCO's evaluation, done: its `stats`, and in `eval` precision, recall and scores, equal to
    pycocotools' to the last bit. Arguments as those of `score_detections`."""
    truth = _ground_truth(table)
    scored = sorted(table.classes if class_ids is None else set(class_ids))
    # Detections of other classes count for nothing, and hotcoco warns of those it does not know.
    detections = detections[np.isin(detections[:, 6], scored)]
    evaluation = COCOeval(truth, truth.load_res(detections), "bbox")
    evaluation.params.cat_ids = scored
    evaluation.evaluate()
    evaluation.accumulate()
    evaluation.summary_lines()  # what `summarize` prints
    return evaluation


def _ground_truth(table: Table) -> COCO:
    """The table as COCO data. Ids count from 1: in pycocotools' matching, 0 means unmatched."""
    return COCO.from_arrays(
        [{"id": image} for image in range(len(table))],
        [{"id": category, "name": str(category)} for category in table.classes],
        np.repeat(np.arange(len(table)), np.diff(table.starts)),
        table.labels,
        table.boxes,
        ids=np.arange(1, len(table.labels) + 1),
        area=table.areas,
        iscrowd=table.crowds,
    )


def _mean_defined(values: NDArray[np.float64]) -> float:
    values = values[values > -1]
    return float(values.mean()) if values.size else math.nan


def _defined(value: float) -> float:
    return math.nan if value == -1 else float(value)
