"""All that is said of a detector's detections, and metrics.json, which says it."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rtdetr_slurm import __version__
from rtdetr_slurm.contract import METRICS_VERSION
from rtdetr_slurm.vision.analysis import KINDS, Analysis, analyse
from rtdetr_slurm.vision.matching import Matching, match_detections
from rtdetr_slurm.vision.metrics import Metrics, score_detections
from rtdetr_slurm.vision.table import Table


@dataclass(frozen=True)
class Assessment:
    """What detections on all images of a table are worth, and what is wrong with them."""

    table: Table
    metrics: Metrics
    matching: Matching
    analysis: Analysis

    def as_json(self) -> dict[str, Any]:
        """Plain data with None for NaN, as docs/engine.md describes metrics.json."""
        names, analysis = self.table.classes, self.analysis
        results = {names[one]: result for one, result in analysis.classes.items()}
        return {
            "detections": len(self.matching.label),
            "metrics": _numbers(self.metrics.summary),
            "per_class": {
                name: {
                    **_numbers(self.metrics.per_class[name]),
                    "boxes": result.boxes,
                    "threshold": _number(result.threshold),
                    "precision": _number(result.precision),
                    "recall": _number(result.recall),
                    "F1": _number(result.f1),
                }
                for name, result in results.items()
            },
            "thresholds": {name: _number(result.threshold) for name, result in results.items()},
            "errors": {
                kind: {"count": count, "dAP50": _number(gain)}
                for kind, count, gain in zip(KINDS, analysis.counts, analysis.gains, strict=True)
            },
            "confusion": [
                {"true": true, "found": found, "count": count}
                for true, found, count in self.confusions()
            ],
            "curves": {
                name: curve.round(5).tolist() for name, curve in self.metrics.curves.items()
            },
        }

    def confusions(self) -> list[tuple[str | None, str | None, int]]:
        """True class, class found and how often; None is no box, and nothing found."""
        names = [*(self.table.classes[one] for one in self.matching.classes), None]
        matrix = self.analysis.confusion
        rows, columns = (axis.tolist() for axis in np.nonzero(matrix))
        return [(names[r], names[c], int(matrix[r, c])) for r, c in zip(rows, columns, strict=True)]


def assess(
    table: Table, detections: NDArray[np.float64], class_ids: Sequence[int] | None = None
) -> Assessment:
    """Compare detections with the ground truth of all images of `table`.

    Args:
        detections: [D, 7]: image position, left, top, width, height (pixels), score, label; the
            images in order.
        class_ids: only these classes exist; None means all of the table's.
    """
    matching = match_detections(table, detections, class_ids)
    metrics = score_detections(table, detections, class_ids)
    return Assessment(table, metrics, matching, analyse(matching))


def metrics_file(action: str, classes: Mapping[int, str], content: Mapping[str, Any]) -> bytes:
    """A metrics.json; one line for each number, class or pair of classes.

    Args:
        action: that scored.
        classes: class id to name.
        content: `Assessment.as_json`, and what was scored on what.
    """
    record = {
        "schema_version": METRICS_VERSION,
        "version": __version__,
        "action": action,
        "classes": {str(i): name for i, name in classes.items()},
        **content,
    }
    parts = ",\n".join(f"  {_dumped(key)}: {_block(value)}" for key, value in record.items())
    # What is no character, as in a class's name, becomes an escape of JSON's.
    return f"{{\n{parts}\n}}\n".encode(errors="backslashreplace")


def _block(value: object) -> str:
    if isinstance(value, dict) and value:
        lines = [f"{_dumped(key)}: {_dumped(one)}" for key, one in value.items()]
        return "{\n    " + ",\n    ".join(lines) + "\n  }"
    if isinstance(value, list) and value and isinstance(value[0], dict):
        return "[\n    " + ",\n    ".join(map(_dumped, value)) + "\n  ]"
    return _dumped(value)


def _dumped(value: object) -> str:
    return json.dumps(value, ensure_ascii=False, allow_nan=False)


def _numbers(values: Mapping[str, float]) -> dict[str, float | None]:
    return {name: _number(value) for name, value in values.items()}


def _number(value: float) -> float | None:
    return None if math.isnan(value) else value
