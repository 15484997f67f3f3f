"""Small data sets as tables, and detections on them."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import pytest

from rtdetr_slurm.data.classes import class_names
from rtdetr_slurm.data.coco import Source, read_annotations
from rtdetr_slurm.data.sample import write_sample
from rtdetr_slurm.vision.table import Table, build_table, open_table


def make_table(*folders: Path) -> Table:
    sources = [Source(f / "images", read_annotations(f / "annotations.json")) for f in folders]
    return open_table(sources, 4)


@pytest.fixture
def table(tmp_path: Path) -> Table:
    """Ten images of 96 pixels."""
    write_sample(tmp_path, train=10, val=7, size=96)
    return make_table(tmp_path / "train")


def break_image(table: Table, image: int) -> str:
    """Make an image undecodable; its path."""
    path = table.path(image)
    path.write_bytes(path.read_bytes()[:100])
    return str(path)


CLASSES = {1: "cat", 2: "dog"}
Box = tuple[int, int, tuple[float, float, float, float]]
"""Image, class, and left, top, width, height."""


def table_of(
    *boxes: Box, crowds: Sequence[Box] = (), images: int = 3, classes: Mapping[int, str] = CLASSES
) -> Table:
    """A table without files: boxes to find, and crowd regions."""
    rows = sorted([(*box, False) for box in boxes] + [(*box, True) for box in crowds])
    where = np.array([row[0] for row in rows], np.int64)
    corners = np.array([row[2] for row in rows], np.float64).reshape(-1, 4)
    name = "a.jpg"
    return Table(
        folders=("/nowhere",),
        source=np.zeros(images, np.int64),
        image_ids=np.arange(images),
        names=np.frombuffer(name.encode() * images, np.uint8),
        name_ends=np.arange(images + 1) * len(name),
        sizes=np.zeros((images, 2), np.int64),
        starts=np.searchsorted(where, np.arange(images + 1)),
        boxes=corners,
        labels=np.array([row[1] for row in rows], np.int64),
        areas=corners[:, 2] * corners[:, 3],
        crowds=np.array([row[3] for row in rows], bool),
        classes=dict(classes),
    )


def detections_of(*found: tuple[int, int, tuple[float, float, float, float], float]) -> np.ndarray:
    """Rows as scoring takes them, of image, class, box and score."""
    rows = [(image, *box, score, label) for image, label, box, score in found]
    return np.array(rows, np.float64).reshape(-1, 7)


RANDOM_IMAGES, RANDOM_CLASSES = 40, 4


def write_random_set(path: Path, seed: int) -> None:
    """Boxes of all sizes, crowds, images without boxes, a class without boxes (the last)."""
    rng = np.random.default_rng(seed)
    annotations = []
    for image in range(1, RANDOM_IMAGES + 1):
        for _ in range(rng.integers(0, 8) if image % 5 else 0):
            width, height = rng.uniform(4, 250, 2).round(2).tolist()
            box = [*rng.uniform(0, 300, 2).round(2).tolist(), width, height]
            annotations.append(
                {
                    "id": len(annotations) + 1,
                    "image_id": image,
                    "category_id": int(rng.integers(1, RANDOM_CLASSES)),
                    "bbox": box,
                    "area": width * height * float(rng.uniform(0.4, 1)),
                    "iscrowd": int(rng.random() < 0.15),
                }
            )
    images = [
        {"id": i, "file_name": f"{i}.jpg", "width": 600, "height": 600}
        for i in range(1, RANDOM_IMAGES + 1)
    ]
    categories = [{"id": i, "name": f"class {i}"} for i in range(1, RANDOM_CLASSES + 1)]
    path.write_text(
        json.dumps({"images": images, "annotations": annotations, "categories": categories})
    )


def load_table(path: Path) -> Table:
    annotations = read_annotations(path)
    return build_table(
        [Source(path.parent, annotations)], class_names([annotations], RANDOM_CLASSES + 1)
    )


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
