"""The twelve numbers against pycocotools itself."""

from __future__ import annotations

import contextlib
import io
import json
import math
from pathlib import Path

import numpy as np
import pytest
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval
from table_support import load_table, random_detections, write_random_set

from rtdetr_slurm.vision.metrics import NAMES, Metrics, coco_evaluation, score_detections
from rtdetr_slurm.vision.table import Table


def pycocotools_scores(path: Path, detections: np.ndarray, class_ids: list[int] | None) -> COCOeval:
    with contextlib.redirect_stdout(io.StringIO()):
        truth = COCO(str(path))
        rows = detections.copy()
        rows[:, 0] += 1  # positions to this file's image ids
        found = truth.loadRes(rows)
        evaluation = COCOeval(truth, found, "bbox")
        if class_ids is not None:
            evaluation.params.catIds = class_ids
        evaluation.evaluate()
        evaluation.accumulate()
        evaluation.summarize()
    return evaluation


def assert_equal(ours: Metrics, reference: COCOeval) -> None:
    expected = [math.nan if value == -1 else value for value in reference.stats]
    np.testing.assert_allclose([ours.summary[n] for n in NAMES], expected, rtol=0, atol=1e-12)
    precision = reference.eval["precision"]
    for k, row in enumerate(ours.per_class.values()):
        values = precision[:, :, k, 0, -1]
        values = values[values > -1]
        expected_ap = values.mean() if values.size else math.nan
        np.testing.assert_allclose(row["AP"], expected_ap, rtol=0, atol=1e-12)
    for name, curve in ours.curves.items():
        assert curve.shape == (101,)
        assert curve.mean() == pytest.approx(ours.per_class[name]["AP50"], abs=1e-12)


def assert_same_bits(
    table: Table, detections: np.ndarray, class_ids: list[int] | None, reference: COCOeval
) -> None:
    """All that pycocotools makes of each class, size and number of detections."""
    ours = coco_evaluation(table, detections, class_ids)
    for name in ("precision", "recall", "scores"):
        assert np.array_equal(ours.eval[name], reference.eval[name]), name
    assert [*ours.stats] == [*reference.stats]


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("class_ids", [None, [1, 3]])
@pytest.mark.parametrize("tied", [False, True])
def test_equals_pycocotools(
    tmp_path: Path, seed: int, class_ids: list[int] | None, tied: bool
) -> None:
    """With crowds, images without boxes or detections, and scores of which many are equal."""
    path = tmp_path / "annotations.json"
    write_random_set(path, seed)
    table = load_table(path)
    detections = random_detections(table, seed)
    detections = detections[~np.isin(detections[:, 0], [1, 5, 7])]
    if tied:
        detections[:, 5] = detections[:, 5].round(1)
    ours = score_detections(table, detections, class_ids)
    reference = pycocotools_scores(path, detections, class_ids)
    assert_equal(ours, reference)
    assert_same_bits(table, detections, class_ids, reference)
    assert 0.1 < ours.summary["mAP50"] < 0.95
    if class_ids is None:
        assert math.isnan(ours.per_class["class 4"]["AP"])


def test_more_detections_than_count(tmp_path: Path) -> None:
    """Beyond 100 per image and class only the best are looked at."""
    path = tmp_path / "annotations.json"
    write_random_set(path, 1)
    table = load_table(path)
    rng = np.random.default_rng(0)
    crowded = np.array([[3, *rng.uniform(5, 300, 4), rng.random(), 1] for _ in range(400)])
    detections = np.concatenate([random_detections(table, 1), crowded])
    reference = pycocotools_scores(path, detections, None)
    assert_equal(score_detections(table, detections), reference)
    assert_same_bits(table, detections, None, reference)


def test_no_detections(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    """pycocotools cannot read an empty result at all; there is nothing found, so all are 0."""
    path = tmp_path / "annotations.json"
    write_random_set(path, 0)
    ours = score_detections(load_table(path), np.empty((0, 7)))
    assert ours.summary["mAP"] == ours.summary["mAR_100"] == 0
    assert ours.per_class["class 1"] == {"AP": 0, "AP50": 0}
    assert capfd.readouterr().out == ""


def test_no_boxes(tmp_path: Path) -> None:
    path = tmp_path / "annotations.json"
    content = {
        "images": [{"id": 1, "file_name": "a.jpg"}],
        "annotations": [],
        "categories": [{"id": 1, "name": "a"}],
    }
    path.write_text(json.dumps(content))
    ours = score_detections(load_table(path), np.array([[0, 1.0, 1, 5, 5, 0.9, 1]]))
    assert math.isnan(ours.summary["mAP"])
    assert ours.curves == {}


def test_a_class_of_no_category(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    """A detector has an output for every id up to num_classes; what it finds of one that no
    category has counts for nothing, and is nothing to warn of after every epoch."""
    path = tmp_path / "annotations.json"
    write_random_set(path, 3)
    table = load_table(path)
    detections = random_detections(table, 3)
    detections[::5, 6] = 0
    assert 0 not in table.classes
    capfd.readouterr()
    ours = score_detections(table, detections)
    assert "".join(capfd.readouterr()) == ""
    assert_equal(ours, pycocotools_scores(path, detections, None))
