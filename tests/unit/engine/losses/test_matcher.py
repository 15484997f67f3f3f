"""The batched matcher against one assignment problem at a time."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
import torch
from model_support import NUM_CLASSES, targets
from scipy.optimize import linear_sum_assignment
from torch import Tensor

from rtdetr_slurm.engine.losses import matcher as matcher_module
from rtdetr_slurm.engine.losses.matcher import Matcher
from rtdetr_slurm.engine.models.types import PaddedTargets
from rtdetr_slurm.vision.boxes import cxcywh_to_xyxy, iou_and_giou
from rtdetr_slurm.vision.samples import Target

MATCHER = Matcher(class_cost=2.0, bbox_cost=5.0, giou_cost=2.0)


def predictions(sets: int, batch: int, queries: int) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(4)
    logits = torch.randn(sets, batch, queries, NUM_CLASSES, generator=generator)
    boxes = torch.rand(sets, batch, queries, 4, generator=generator) * 0.5 + 0.1
    return logits, boxes


def pair_cost(logits: Tensor, box: Tensor, label: int, target: Tensor) -> float:
    p = float(logits[label].double().sigmoid())
    positive = 0.25 * (1 - p) ** 2 * -np.log(p + 1e-8)
    negative = 0.75 * p**2 * -np.log(1 - p + 1e-8)
    _, giou = iou_and_giou(cxcywh_to_xyxy(box.double()), cxcywh_to_xyxy(target.double()))
    distance = float((box.double() - target.double()).abs().sum())
    return 2.0 * (positive - negative) + 5.0 * distance - 2.0 * float(giou)


def one_by_one(logits: Tensor, boxes: Tensor, target: Target) -> list[int]:
    """The query of each target of one image in one set."""
    pairs = list(zip(target["labels"].tolist(), target["boxes"], strict=True))
    cost = [
        [pair_cost(logits[q], boxes[q], label, box) for label, box in pairs]
        for q in range(len(logits))
    ]
    rows, columns = linear_sum_assignment(np.array(cost))
    found = [-1] * len(pairs)
    for row, column in zip(rows, columns, strict=True):
        found[column] = int(row)
    return found


@pytest.mark.parametrize("counts", [(3, 1), (0, 4), (1, 0, 2)])
def test_every_set_and_image_gets_its_own_best_matching(counts: tuple[int, ...]) -> None:
    batch = targets(*counts)
    logits, boxes = predictions(3, len(counts), 9)
    found = MATCHER(logits, boxes, PaddedTargets.from_list(batch))
    assert found.shape == (3, len(counts), max(counts))
    for index, image in itertools.product(range(3), range(len(counts))):
        expected = one_by_one(logits[index, image], boxes[index, image], batch[image])
        padded = expected + [-1] * (max(counts) - len(expected))
        assert found[index, image].tolist() == padded


def test_no_targets_at_all() -> None:
    logits, boxes = predictions(2, 2, 5)
    assert MATCHER(logits, boxes, PaddedTargets.from_list(targets(0, 0))).shape == (2, 2, 0)


def test_more_targets_than_queries() -> None:
    batch = targets(6)
    logits, boxes = predictions(1, 1, 4)
    found = MATCHER(logits, boxes, PaddedTargets.from_list(batch))[0, 0].tolist()
    assert found == one_by_one(logits[0, 0], boxes[0, 0], batch[0])
    assert sorted(found) == [-1, -1, 0, 1, 2, 3]


def test_non_finite_predictions_are_matched_last() -> None:
    logits, boxes = predictions(1, 1, 4)
    logits[0, 0, 1] = torch.nan
    boxes[0, 0, 2] = torch.inf
    found = MATCHER(logits, boxes, PaddedTargets.from_list(targets(2)))[0, 0].tolist()
    assert set(found) == {0, 3}


def test_both_ways_to_the_l1_distance_agree(monkeypatch: pytest.MonkeyPatch) -> None:
    """The one for CUDA and the one for CPU; the first is checked here without a GPU."""
    _, boxes = predictions(2, 3, 5)
    target_boxes = PaddedTargets.from_list(targets(2, 0, 4)).boxes
    on_cpu = matcher_module._l1(boxes, target_boxes)
    broadcast = (boxes[..., :, None, :] - target_boxes[None, :, None, :, :]).abs().sum(-1)
    torch.testing.assert_close(on_cpu, broadcast)


def test_costs_leave_the_device_once(monkeypatch: pytest.MonkeyPatch) -> None:
    copies = []
    original = Tensor.cpu
    monkeypatch.setattr(Tensor, "cpu", lambda self: copies.append(self.shape) or original(self))
    logits, boxes = predictions(4, 2, 6)
    MATCHER(logits, boxes, PaddedTargets.from_list(targets(3, 1)))
    assert copies == [torch.Size([4, 2, 6, 3])]
