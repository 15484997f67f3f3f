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

from rtdetr_slurm.data.classes import class_names
from rtdetr_slurm.data.coco import Source, read_annotations
from rtdetr_slurm.vision.metrics import NAMES, Metrics, score_detections
from rtdetr_slurm.vision.table import Table, build_table

IMAGES, CLASSES = 40, 4


def write_random_set(path: Path, seed: int) -> None:
    """Boxes of all sizes, crowds, images without boxes, a class without boxes (the last)."""
    rng = np.random.default_rng(seed)
    annotations = []
    for image in range(1, IMAGES + 1):
        for _ in range(rng.integers(0, 8) if image % 5 else 0):
            width, height = rng.uniform(4, 250, 2).round(2).tolist()
            box = [*rng.uniform(0, 300, 2).round(2).tolist(), width, height]
            annotations.append(
                {
                    "id": len(annotations) + 1,
                    "image_id": image,
                    "category_id": int(rng.integers(1, CLASSES)),
                    "bbox": box,
                    "area": width * height * float(rng.uniform(0.4, 1)),
                    "iscrowd": int(rng.random() < 0.15),
                }
            )
    images = [
        {"id": i, "file_name": f"{i}.jpg", "width": 600, "height": 600}
        for i in range(1, IMAGES + 1)
    ]
    categories = [{"id": i, "name": f"class {i}"} for i in range(1, CLASSES + 1)]
    path.write_text(
        json.dumps({"images": images, "annotations": annotations, "categories": categories})
    )


def load(path: Path) -> Table:
    annotations = read_annotations(path)
    return build_table([Source(path.parent, annotations)], class_names([annotations], CLASSES + 1))


def random_detections(table: Table, seed: int) -> np.ndarray:
    """Ground truth moved about a little, with duplicates and inventions; tied scores as well."""
    rng = np.random.default_rng(seed)
    rows = []
    image_of_box = np.repeat(np.arange(len(table)), np.diff(table.starts))
    for image, box, label in zip(image_of_box, table.boxes, table.labels, strict=True):
        for _ in range(rng.integers(0, 3)):
            moved = box + rng.normal(0, 0.08, 4) * box[[2, 3, 2, 3]]
            wrong = rng.random() < 0.1
            rows.append(
                [image, *moved, round(rng.random(), 2), rng.integers(1, 5) if wrong else label]
            )
    for _ in range(200):
        rows.append(
            [rng.integers(0, len(table)), *rng.uniform(5, 200, 4), rng.random(), rng.integers(1, 5)]
        )
    return np.array(rows, dtype=np.float64)


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


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("class_ids", [None, [1, 3]])
def test_equals_pycocotools(tmp_path: Path, seed: int, class_ids: list[int] | None) -> None:
    path = tmp_path / "annotations.json"
    write_random_set(path, seed)
    table = load(path)
    detections = random_detections(table, seed)
    ours = score_detections(table, detections, class_ids)
    assert_equal(ours, pycocotools_scores(path, detections, class_ids))
    assert 0.1 < ours.summary["mAP50"] < 0.95
    if class_ids is None:
        assert math.isnan(ours.per_class["class 4"]["AP"])


def test_more_detections_than_count(tmp_path: Path) -> None:
    """Beyond 100 per image and class only the best are looked at."""
    path = tmp_path / "annotations.json"
    write_random_set(path, 1)
    table = load(path)
    rng = np.random.default_rng(0)
    crowded = np.array([[3, *rng.uniform(5, 300, 4), rng.random(), 1] for _ in range(400)])
    detections = np.concatenate([random_detections(table, 1), crowded])
    assert_equal(score_detections(table, detections), pycocotools_scores(path, detections, None))


def test_no_detections(tmp_path: Path) -> None:
    """pycocotools cannot read an empty result at all; there is nothing found, so all are 0."""
    path = tmp_path / "annotations.json"
    write_random_set(path, 0)
    ours = score_detections(load(path), np.empty((0, 7)))
    assert ours.summary["mAP"] == ours.summary["mAR_100"] == 0
    assert ours.per_class["class 1"] == {"AP": 0, "AP50": 0}


def test_no_boxes(tmp_path: Path) -> None:
    path = tmp_path / "annotations.json"
    content = {
        "images": [{"id": 1, "file_name": "a.jpg"}],
        "annotations": [],
        "categories": [{"id": 1, "name": "a"}],
    }
    path.write_text(json.dumps(content))
    ours = score_detections(load(path), np.array([[0, 1.0, 1, 5, 5, 0.9, 1]]))
    assert math.isnan(ours.summary["mAP"])
    assert ours.as_json()["metrics"]["mAP"] is None
