"""Box arithmetic against one-pair-at-a-time formulas, degenerate boxes included."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from rtdetr_slurm.vision.boxes import cxcywh_to_xyxy, iou_and_giou


def by_hand(a: list[float], b: list[float]) -> tuple[float, float]:
    def area(box: list[float]) -> float:
        return max(box[2] - box[0], 0) * max(box[3] - box[1], 0)

    low, high = (lambda i: max(a[i], b[i])), (lambda i: min(a[i], b[i]))
    overlap = area([low(0), low(1), high(2), high(3)])
    union = area(a) + area(b) - overlap
    hull = area([high(0), high(1), low(2), low(3)])
    iou = overlap / union if union else 0.0
    return iou, iou - ((hull - union) / hull if hull else 0.0)


def test_corners() -> None:
    boxes = torch.tensor([[0.5, 0.4, 0.2, 0.6], [0.1, 0.1, 0.0, 0.0]])
    expected = torch.tensor([[0.4, 0.1, 0.6, 0.7], [0.1, 0.1, 0.1, 0.1]])
    torch.testing.assert_close(cxcywh_to_xyxy(boxes), expected)


def random_corners(count: int) -> Tensor:
    generator = torch.Generator().manual_seed(0)
    points = torch.rand(count, 2, 2, generator=generator, dtype=torch.float64)
    return torch.cat([points.amin(1), points.amax(1)], dim=1)


def test_pairwise_and_elementwise() -> None:
    boxes = random_corners(12)
    iou, giou = iou_and_giou(boxes[:, None], boxes[None, :])
    for i, a in enumerate(boxes.tolist()):
        for j, b in enumerate(boxes.tolist()):
            expected = by_hand(a, b)
            assert iou[i, j].item() == pytest.approx(expected[0], abs=1e-12)
            assert giou[i, j].item() == pytest.approx(expected[1], abs=1e-12)
    same, _ = iou_and_giou(boxes, boxes)
    torch.testing.assert_close(same, torch.ones_like(same))
    torch.testing.assert_close(iou_and_giou(boxes[:6], boxes[6:])[1], giou[:6, 6:].diagonal())


@pytest.mark.parametrize(
    ("a", "b"),
    [
        ([0.2, 0.2, 0.2, 0.2], [0.2, 0.2, 0.2, 0.2]),  # the same point
        ([0.2, 0.2, 0.2, 0.2], [0.7, 0.5, 0.7, 0.5]),  # two points
        ([0.2, 0.2, 0.2, 0.8], [0.2, 0.3, 0.2, 0.9]),  # two lines on top of one another
        ([0.1, 0.1, 0.5, 0.5], [0.3, 0.3, 0.3, 0.3]),  # a point in a box
    ],
)
def test_degenerate_boxes_have_finite_values_and_gradients(a: list[float], b: list[float]) -> None:
    first = torch.tensor(a, requires_grad=True)
    iou, giou = iou_and_giou(first, torch.tensor(b))
    expected = by_hand(a, b)
    assert iou.item() == pytest.approx(expected[0], abs=1e-6)
    assert giou.item() == pytest.approx(expected[1], abs=1e-6)
    (iou + giou).backward()
    assert first.grad is not None
    assert torch.isfinite(first.grad).all()
