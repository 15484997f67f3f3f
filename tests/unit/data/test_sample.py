"""The generated sample set."""

from __future__ import annotations

import hashlib
from pathlib import Path

import numpy as np
from PIL import Image

from rtdetr_slurm.data.coco import read_annotations
from rtdetr_slurm.data.sample import CLASSES, main, write_sample


def digest(folder: Path) -> str:
    total = hashlib.sha256()
    for path in sorted(folder.rglob("*")):
        total.update(path.name.encode())
        total.update(path.read_bytes() if path.is_file() else b"")
    return total.hexdigest()


def test_is_deterministic(tmp_path: Path) -> None:
    for name, seed in (("a", 1), ("b", 1), ("c", 2)):
        write_sample(tmp_path / name, train=6, val=3, size=64, seed=seed)
    assert digest(tmp_path / "a") == digest(tmp_path / "b") != digest(tmp_path / "c")


def test_is_coco_with_ids_from_one(tmp_path: Path) -> None:
    main([str(tmp_path), "--train", "30", "--val", "5", "--size", "96"])
    train = read_annotations(tmp_path / "train" / "annotations.json")
    assert train.num_images == 30
    assert train.categories == dict(enumerate(CLASSES, start=1))
    assert set(train.category_ids) == {1, 2, 3}
    boxes = np.asarray(train.boxes).reshape(-1, 4)
    assert (boxes[:, :2] >= 0).all()
    assert (boxes[:, :2] + boxes[:, 2:] <= 96).all()
    assert (boxes[:, 2:] > 5).all()
    for name in train.file_names:
        with Image.open(tmp_path / "train" / "images" / name) as image:
            assert image.size == (96, 96)


def test_boxes_are_where_the_shapes_are(tmp_path: Path) -> None:
    """Shapes are brighter than any background: just inside a box's edges there is one."""
    write_sample(tmp_path, train=20, val=1, size=160)
    read = read_annotations(tmp_path / "train" / "annotations.json")
    boxes = np.asarray(read.boxes).reshape(-1, 4)
    for image, (left, top, width, height) in zip(read.image_index, boxes, strict=True):
        picture = Image.open(tmp_path / "train" / "images" / read.file_names[image])
        value = np.asarray(picture.convert("HSV"), dtype=int)[..., 2]
        x0, y0 = int(left) + 1, int(top) + 1
        x1, y1 = int(left + width) - 1, int(top + height) - 1
        inside = value[y0 : y1 + 1, x0 : x1 + 1] > 170
        assert inside[:, :3].any()
        assert inside[:, -3:].any()
        assert inside[:3].any()
        assert inside[-3:].any()


def test_label_map_counts_from_zero(tmp_path: Path) -> None:
    write_sample(tmp_path, train=1, val=1, size=64)
    assert (tmp_path / "label_map.txt").read_text().split() == ["background", *CLASSES]
