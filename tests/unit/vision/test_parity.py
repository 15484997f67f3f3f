"""Comparing two forms of a detector."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path

import pytest
import torch
from table_support import table  # noqa: F401
from torch import Tensor

from rtdetr_slurm.vision.parity import Parity, compare
from rtdetr_slurm.vision.preprocess import Resize
from rtdetr_slurm.vision.samples import EvaluationSet, collate
from rtdetr_slurm.vision.scoring import EvaluationData
from rtdetr_slurm.vision.table import Table

# ruff: noqa: F811  (pytest fixtures are arguments of the name they are imported by)
QUERIES = 6
Change = Callable[[Tensor, Tensor], tuple[Tensor, Tensor]]


def predict(change: Change) -> Callable[[Tensor], Mapping[str, Tensor]]:
    def run(images: Tensor) -> Mapping[str, Tensor]:
        generator = torch.Generator().manual_seed(0)
        logits = torch.randn(len(images), QUERIES, 4, generator=generator)
        boxes = torch.rand(len(images), QUERIES, 4, generator=generator)
        logits, boxes = change(logits, boxes)
        return {"pred_logits": logits, "pred_boxes": boxes}

    return run


def compared(table: Table, change: Change) -> Parity:
    data = EvaluationData(table, Resize((64, 64)), QUERIES)
    images = EvaluationSet(table, data.resize)
    batches = [collate([images[i]]) for i in range(len(table))]
    same = predict(lambda logits, boxes: (logits, boxes))
    return compare(same, predict(change), batches, data, torch.device("cpu"))


def test_queries_that_swapped_places_are_the_same(table: Table) -> None:
    parity = compared(table, lambda logits, boxes: (logits.flip(1), boxes.flip(1)))
    assert (parity.images, parity.queries) == (len(table), QUERIES * len(table))
    assert (parity.unmatched, parity.max_difference) == (0, 0)
    assert parity.map_difference == pytest.approx(0)
    assert parity.problem() is None


def test_a_small_difference_is_measured_and_a_large_one_is_a_problem(table: Table) -> None:
    small = compared(table, lambda logits, boxes: (logits, boxes + 2e-4))
    assert small.max_difference == pytest.approx(2e-4, rel=1e-2)
    assert small.problem() is None
    large = compared(table, lambda logits, boxes: (logits, boxes.roll(1, -1)))
    assert large.unmatched > 0
    assert "have no counterpart within 0.001" in str(large.problem())


def test_another_map_is_a_problem() -> None:
    assert Parity(5, 100, 1, 1e-5, 0.5, 0.5005).problem() is None
    worse = Parity(5, 100, 0, 1e-5, 0.5, 0.48)
    assert worse.problem() == "its mAP differs by -2.00 points"
    assert worse.as_json()["mAP_difference_points"] == pytest.approx(-2)
    nothing = Parity(5, 100, 0, 1e-5, float("nan"), float("nan"))
    assert nothing.problem() is None
    assert nothing.as_json()["mAP_other"] is None


def test_some_images_of_a_table(table: Table, tmp_path: Path) -> None:
    """They keep their files, sizes and boxes."""
    few = table.spread(2)
    chosen = [0, len(table) // 2]
    assert [few.path(i) for i in range(len(few))] == [table.path(i) for i in chosen]
    for new, old in enumerate(chosen):
        assert few.stated_size(new) == table.stated_size(old)
        assert few.boxes[few.rows(new)].tolist() == table.boxes[table.rows(old)].tolist()
        assert few.labels[few.rows(new)].tolist() == table.labels[table.rows(old)].tolist()
    everything = table.spread(1000)
    assert everything.boxes.tolist() == table.boxes.tolist()
