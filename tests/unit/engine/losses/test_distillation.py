"""How features are compared, in numbers that can be worked out by hand."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from rtdetr_slurm.engine.losses.distillation import (
    COMPARISONS,
    divergence,
    like_map,
    object_mask,
    object_quality,
)
from rtdetr_slurm.engine.models.types import PaddedTargets


def targets(*boxes: list[list[float]]) -> PaddedTargets:
    return PaddedTargets.from_list(
        [
            {
                "labels": torch.zeros(len(each), dtype=torch.int64),
                "boxes": torch.tensor(each).view(-1, 4),
            }
            for each in boxes
        ]
    )


class TestObjectQuality:
    def test_is_score_times_overlap(self) -> None:
        """Boxes of both sides in cxcywh in 0..1 (TAO compares pixels with shares, so that nothing
        overlaps), and scores as probabilities (TAO takes logits)."""
        logits = torch.tensor([[[0.0, -9.0], [2.0, 1.0], [-20.0, -20.0]]])
        boxes = torch.tensor([[[0.5, 0.5, 0.2, 0.4], [0.5, 0.6, 0.2, 0.4], [0.5, 0.5, 0.2, 0.4]]])
        quality = object_quality(logits, boxes, targets([[0.5, 0.5, 0.2, 0.4]]))
        overlap = 0.3 / 0.5  # two boxes of 0.2 x 0.4 that are 0.1 apart
        expected = [0.5, torch.tensor(2.0).sigmoid().item() * overlap, 0.0]
        assert quality[0].tolist() == pytest.approx(expected, abs=1e-6)

    def test_the_nearest_box_counts_and_no_padding(self) -> None:
        logits = torch.full((2, 1, 3), 20.0)
        boxes = torch.tensor([[[0.3, 0.3, 0.2, 0.2]], [[0.0, 0.0, 0.0, 0.0]]])
        annotated = targets([[0.9, 0.9, 0.1, 0.1], [0.3, 0.3, 0.2, 0.2]], [])
        assert object_quality(logits, boxes, annotated)[:, 0].tolist() == pytest.approx([1, 0])

    def test_without_any_box(self) -> None:
        quality = object_quality(torch.zeros(2, 5, 3), torch.rand(2, 5, 4), targets([], []))
        assert torch.equal(quality, torch.zeros(2, 5))


class TestObjectMask:
    def test_is_where_cells_are_like_queries_that_found_something(self) -> None:
        feature = torch.zeros(1, 3, 2, 2)
        feature[0, 0, 0, 0] = 4.0  # like query 0
        feature[0, 1, 0, 1] = 0.1  # like query 1, of any length
        feature[0, 2, 1, 0] = 1.0  # like the one that found nothing
        feature[0, 0, 1, 1] = -1.0  # the opposite of query 0
        queries = torch.eye(3)[None] * torch.tensor([1.0, 7.0, 1.0])[:, None]
        mask = object_mask(queries, torch.tensor([[0.8, 0.4, 0.0]]), feature)
        expected = torch.tensor([[0.8, 0.4], [0.01, 0.01]]) / 0.8
        torch.testing.assert_close(mask[0, 0], expected)

    def test_is_even_where_there_are_no_objects(self) -> None:
        mask = object_mask(torch.rand(2, 5, 8), torch.zeros(2, 5), torch.rand(2, 8, 3, 4))
        assert torch.equal(mask, torch.ones(2, 1, 3, 4))


class TestComparisons:
    @pytest.mark.parametrize("shape", [(2, 8, 3, 4), (2, 8, 5)], ids=["maps", "cells"])
    @pytest.mark.parametrize("name", COMPARISONS)
    def test_of_what_is_equal_is_zero(self, name: str, shape: tuple[int, ...]) -> None:
        a, b = torch.rand(2, *shape)
        assert COMPARISONS[name](a, a).item() == pytest.approx(0, abs=1e-6)
        assert COMPARISONS[name](a, b).item() > 1e-3

    def test_divergence_is_over_the_channels(self) -> None:
        """Not over the last axis, which in a map is its width."""
        half = torch.tensor([0.5, 0.5]).log()
        quarter = torch.tensor([0.75, 0.25]).log()
        expected = 0.75 * torch.tensor(1.5).log() + 0.25 * torch.tensor(0.5).log()

        def as_map(values: Tensor) -> Tensor:
            return values[None, :, None, None].expand(2, 2, 3, 5)

        torch.testing.assert_close(divergence(as_map(half), as_map(quarter)), expected)
        cells = half.expand(2, 7, 2), quarter.expand(2, 7, 2)
        torch.testing.assert_close(divergence(*cells), expected)

    def test_a_map_of_another_size_is_resized(self) -> None:
        ramp = torch.arange(8.0).view(1, 1, 1, 8).expand(1, 1, 4, 8)
        small = like_map(ramp, torch.zeros(1, 1, 2, 4))
        assert small[0, 0].tolist() == [[0.5, 2.5, 4.5, 6.5]] * 2
        cells = torch.rand(1, 6, 8)
        assert like_map(cells, torch.rand(1, 6, 4)) is cells
