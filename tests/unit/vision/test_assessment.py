"""metrics.json, and that what it says agrees."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from table_support import (
    detections_of,
    load_table,
    random_detections,
    table_of,
    write_random_set,
)

from rtdetr_slurm.contract import METRICS_VERSION
from rtdetr_slurm.vision.analysis import class_ap50
from rtdetr_slurm.vision.assessment import assess, metrics_file
from rtdetr_slurm.vision.matching import match_detections
from rtdetr_slurm.vision.metrics import score_detections


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("class_ids", [None, [1, 3]])
def test_the_matching_is_cocos(tmp_path: Path, seed: int, class_ids: list[int] | None) -> None:
    """With crowds, ties, and more detections of a class than count."""
    write_random_set(tmp_path / "annotations.json", seed)
    table = load_table(tmp_path / "annotations.json")
    rng = np.random.default_rng(seed)
    crowded = np.array([[3, *rng.uniform(5, 300, 4), rng.random(), 1] for _ in range(200)])
    detections = np.concatenate([random_detections(table, seed), crowded])
    theirs = score_detections(table, detections, class_ids).per_class
    ours = class_ap50(match_detections(table, detections, class_ids))
    assert 1 in ours
    for category, value in ours.items():
        assert value == pytest.approx(theirs[table.classes[category]]["AP50"], abs=1e-12)


def test_metrics_file() -> None:
    """Valid JSON with every number; names that JSON has to escape are escaped, and come back."""
    names = {1: 'a "cat" </script>', 2: "bär", 3: "half \ud800", 4: "none"}
    here, there = (0, 0, 100, 100), (400, 0, 100, 100)
    table = table_of((0, 1, here), (1, 2, here), (2, 3, here), classes=names)
    found = [(0, 1, here, 0.9), (1, 1, here, 0.8), (1, 2, there, 0.7), (2, 3, here, 0.5)]
    assessment = assess(table, detections_of(*found))
    content = json.loads(metrics_file("evaluate", names, {"x": 1, **assessment.as_json()}))
    cat, bear, half, none = names.values()
    assert content["schema_version"] == METRICS_VERSION
    assert (content["action"], content["x"]) == ("evaluate", 1)
    assert content["classes"] == {str(i): name for i, name in names.items()}
    assert content["metrics"]["mAP50"] == pytest.approx(2 / 3)
    assert content["thresholds"] == {cat: pytest.approx(0.85), bear: None, half: 0.5, none: None}
    assert content["per_class"][cat] == {
        "AP": pytest.approx(1),
        "AP50": pytest.approx(1),
        "boxes": 1,
        "threshold": content["thresholds"][cat],
        "precision": 1,
        "recall": 1,
        "F1": 1,
    }
    assert set(content["per_class"][none].values()) == {None, 0}
    assert [row for row in content["confusion"] if row["true"] != row["found"]] == [
        {"true": bear, "found": None, "count": 1},
        {"true": None, "found": bear, "count": 1},
    ]
    assert content["errors"]["background"] == {"count": 1, "dAP50": pytest.approx(0)}
    assert [*content["curves"]] == [cat, bear, half]
    for name, curve in content["curves"].items():
        assert np.mean(curve) == pytest.approx(content["per_class"][name]["AP50"], abs=1e-5)


def test_nothing_to_find() -> None:
    content = assess(table_of(), detections_of()).as_json()
    assert content["metrics"]["mAP"] is None
    assert content["errors"]["missed"] == {"count": 0, "dAP50": None}
    assert json.loads(metrics_file("evaluate", {}, content))["curves"] == {}
