"""Boxes counted: what training learns from, and what boxes look like that are not COCO's."""

from __future__ import annotations

from math import inf
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from coco_support import written

from rtdetr_slurm.data.boxes import (
    BoxCounts,
    count_boxes,
    likely_cause,
    misread,
    training_corners,
)
from rtdetr_slurm.data.coco import read_annotations

WIDTH, HEIGHT = 100, 50
Box = tuple[float, float, float, float]


def counted(
    path: Path, boxes: list[Any], crowds: list[int] | None = None, **options: Any
) -> BoxCounts:
    content = {
        "images": [
            {"id": number, "file_name": f"{number}.jpg", "width": WIDTH, "height": HEIGHT}
            for number in (1, 2)
        ],
        "categories": [{"id": 1, "name": "a"}],
        "annotations": [
            {"image_id": 1 + number % 2, "category_id": 1, "bbox": [*box], "iscrowd": crowd}
            for number, (box, crowd) in enumerate(
                zip(boxes, crowds or [0] * len(boxes), strict=True)
            )
        ],
    }
    return count_boxes(read_annotations(written(path / "a.json", content)), **options)


def random_boxes(seed: int = 0, number: int = 200) -> list[Box]:
    """Boxes in pixels that lie inside of an image."""
    rng = np.random.default_rng(seed)
    left, top = rng.uniform(0, WIDTH - 5, number), rng.uniform(0, HEIGHT - 5, number)
    right, bottom = rng.uniform(left + 2, WIDTH), rng.uniform(top + 2, HEIGHT)
    stacked = np.stack([left, top, right - left, bottom - top], axis=1)
    return [tuple(box) for box in stacked.tolist()]


@pytest.mark.parametrize(
    ("box", "corners"),
    [
        ((10, 10, 20, 20), (10, 10, 30, 30)),
        ((90, 40, 30, 30), (90, 40, 100, 50)),
        ((-5, -5, 10, 10), (0, 0, 5, 5)),
        ((5, 5, 0.9, 10), None),
        ((5, 5, 1, 1), (5, 5, 6, 6)),
        ((99.5, 5, 10, 10), None),
        ((200, 5, 10, 10), None),
        ((5, -20, 10, 10), None),
        ((20, 20, -10, -10), None),
    ],
)
def test_what_training_learns_from(box: Box, corners: Box | None) -> None:
    assert training_corners(box, WIDTH, HEIGHT) == corners


def test_an_unknown_size_cuts_nothing() -> None:
    assert training_corners((90, 40, 3000, 3000), inf, inf) == (90, 40, 3090, 3040)


def test_counts(tmp_path: Path) -> None:
    boxes = [(10, 10, 20, 20)] * 3
    boxes += [(5, 5, -9, 9), (5, 5, 0, 9), (99.5, 5, 10, 10), (80, 5, 30, 30), (0, 0, 5, 5)]
    counts = counted(tmp_path, boxes, [0] * 7 + [1], network_size=(50, 4))
    assert (counts.total, counts.crowd, counts.single) == (8, 1, 7)
    assert (counts.trained, counts.negative, counts.small, counts.outside) == (4, 1, 1, 1)
    assert counts.beyond == 2
    assert counts.tiny == 4  # 20 pixels of 100 are 0.8 of 4
    assert counts.fullest == (4, 0)
    assert counts.fullest_trained == (3, 0)


def test_good_boxes_look_like_nothing_else(tmp_path: Path) -> None:
    counts = counted(tmp_path, random_boxes())
    assert counts.trained == counts.total == 200
    assert misread(counts) is None
    assert likely_cause(counts) == ""


@pytest.mark.parametrize("stored", ["corners", "shares", "centred shares", "shares as corners"])
def test_boxes_that_are_not_pixels(tmp_path: Path, stored: str) -> None:
    def other(box: Box) -> Box:
        x, y, w, h = box
        shares = (x / WIDTH, y / HEIGHT, w / WIDTH, h / HEIGHT)
        return {
            "corners": (x, y, x + w, y + h),
            "shares": shares,
            "centred shares": (shares[0] + shares[2] / 2, shares[1] + shares[3] / 2, *shares[2:]),
            "shares as corners": (*shares[:2], shares[0] + shares[2], shares[1] + shares[3]),
        }[stored]

    said = misread(counted(tmp_path, [other(box) for box in random_boxes()]))
    assert said is not None
    if stored == "corners":
        assert "look like corners [x0, y0, x1, y1]" in said
    else:
        assert "all 200 boxes lie in 0..1: they look like shares" in said


def test_likely_causes(tmp_path: Path) -> None:
    good = random_boxes()
    negative = counted(tmp_path, [(x + w, y + h, -w, -h) for x, y, w, h in good])
    assert "measured from another corner" in likely_cause(negative)
    centres = counted(tmp_path, [(x + w / 2, y + h / 2, w, h) for x, y, w, h in good])
    assert misread(centres) is None
    assert "[centre x, centre y, width, height]" in likely_cause(centres)
    shares = [(x / WIDTH, y / HEIGHT, w / WIDTH, h / HEIGHT) for x, y, w, h in good[:20]]
    assert ". 20 lie in 0..1" in likely_cause(counted(tmp_path, [*good, *shares]))
    larger = counted(tmp_path, [tuple(2 * side for side in box) for box in good])
    assert misread(larger) is None
    assert "images of another size" in likely_cause(larger)
    assert "iscrowd" in likely_cause(counted(tmp_path, good, [1] * len(good)))
