"""Detections as files."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any
from urllib.parse import unquote

import numpy as np
import pytest
import torch
from coco_support import written
from image_support import table

from rtdetr_slurm.errors import NewerVersion, RequestError
from rtdetr_slurm.vision.output_names import name_outputs
from rtdetr_slurm.vision.predictions import (
    clipped_rows,
    images_json,
    label_lines,
    label_name,
    predictions_json,
    written_before,
)
from rtdetr_slurm.vision.samples import Batch
from rtdetr_slurm.vision.scoring import Detected

ROWS = np.array([[0, 10.0, 20.12345, 30, 40.5, 0.87654, 1], [2, 0, 0, 5, 5, 0.5, 2]])
CLASSES = {1: "traffic light", 2: "100%"}


def test_a_line_has_taos_sixteen_fields() -> None:
    assert label_lines(ROWS[:1], {1: "car"}) == (
        "car 0.00 0 0.00 10.000 20.123 40.000 60.623 0.00 0.00 0.00 0.00 0.00 0.00 0.00 0.877\n"
    )
    lines = label_lines(ROWS, CLASSES).splitlines()
    assert [len(line.split(" ")) for line in lines] == [16, 16]
    assert label_lines(ROWS[:0], CLASSES) == ""


@pytest.mark.parametrize(
    "name", ["car", "traffic light", "a\tb", "50% off", "%20", "Kätzchen", "a\u00a0b\n", "犬"]
)
def test_a_class_name_is_one_field_and_comes_back(name: str) -> None:
    """In TAO's files a name with a space makes another number of fields."""
    field = label_name(name)
    assert len(field.split()) == 1
    assert field.isprintable()
    assert unquote(field) == name
    assert label_name("traffic light") == "traffic%20light"


def test_boxes_are_clipped_to_their_image() -> None:
    rows = np.array([[5, -10, -2.5, 100, 50, 0.9, 0], [3, 60, 10, 80, 20, 0.8, 1]], float)
    none = torch.empty(0)
    batch = Batch([3, 5], none, none, none, [0, 0], torch.tensor([[100.0, 80.0], [64.0, 32.0]]))
    clipped = clipped_rows(Detected(batch, none, none, rows))
    assert clipped.tolist() == [[5, 0, 0, 64, 32, 0.9, 0], [3, 60, 10, 40, 20, 0.8, 1]]
    assert rows[0, 1] == -10


def test_predictions_are_cocos_results() -> None:
    rows = json.loads(b"".join(predictions_json(ROWS)))
    assert rows[0] == {
        "image_id": 1, "category_id": 1, "bbox": [10, 20.123, 30, 40.5], "score": 0.87654,
    }  # fmt: skip
    assert rows[1]["image_id"] == 3
    assert json.loads(b"".join(predictions_json(ROWS[:0]))) == []


def images(**options: Any) -> dict[str, Any]:
    made = table({"/data": ["a.jpg", "caf\udce9.jpg"], "/z.zip": ["a.jpg"]})
    outputs = name_outputs(made, by_sequence=False)
    return dict(json.loads(b"".join(images_json(made, outputs, {"action": "x"}, **options))))


def test_images_json_says_what_the_ids_mean() -> None:
    read = images(sizes={0: (640, 480)}, problems={1: "does not exist"})
    assert read["info"]["schema_version"] == 1
    assert read["images"] == [
        {"id": 1, "file_name": "a.jpg", "path": "/data/a.jpg", "width": 640, "height": 480,
         "label": "labels/a.txt", "picture": "images_annotated/a.jpg"},
        {"id": 2, "file_name": "caf\udce9.jpg", "path": "/data/caf\udce9.jpg",
         "problem": "does not exist"},
        {"id": 3, "file_name": "a.jpg", "path": "/z.zip/a.jpg",
         "label": "labels/a_2.txt", "picture": "images_annotated/a_2.jpg"},
    ]  # fmt: skip


def test_pycocotools_joins_the_two(tmp_path: Path) -> None:
    from pycocotools.coco import COCO

    written(tmp_path / "images.json", images(sizes=dict.fromkeys(range(3), (640, 480))))
    written(tmp_path / "predictions.json", b"".join(predictions_json(ROWS)).decode())
    truth = COCO(str(tmp_path / "images.json"))
    found = truth.loadRes(str(tmp_path / "predictions.json"))
    assert [a["area"] for a in found.loadAnns(found.getAnnIds(imgIds=[1]))] == [30 * 40.5]


def test_what_was_written_before_is_found_again(tmp_path: Path) -> None:
    path = tmp_path / "images.json"
    assert list(written_before(path)) == []
    written(path, images(problems={1: "does not exist"}))
    assert list(written_before(path)) == [
        "labels/a.txt", "images_annotated/a.jpg", "labels/a_2.txt", "images_annotated/a_2.jpg",
    ]  # fmt: skip


@pytest.mark.parametrize(
    "content",
    [
        "{",
        "[]",
        {"images": [{"label": "/etc/passwd"}]},
        {"images": [{"label": "labels/../../x.txt"}]},
        {"images": [{"picture": "model_epoch_001.pth"}]},
        {"images": [{"label": 3}]},
    ],
)
def test_nothing_else_is_taken_for_it(tmp_path: Path, content: Any) -> None:
    """Whoever finds it removes these files."""
    path = written(tmp_path / "images.json", content)
    with pytest.raises(RequestError, match=r"images\.json, which says what .* cannot be read: "):
        list(written_before(path))


def test_a_newer_version_or_no_file_is_not_read(tmp_path: Path) -> None:
    path = written(tmp_path / "images.json", {"info": {"schema_version": 2}, "images": []})
    with pytest.raises(NewerVersion):
        list(written_before(path))
    path.unlink()
    os.mkfifo(path)
    with pytest.raises(RequestError, match="it is not a file"):
        list(written_before(path))
