"""How long runs take: what is counted, and what is made of it."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from rtdetr_slurm.vision.timing import Pace, summarised, time_batches


def test_batches_have_their_size_and_the_warm_up_does_not_count() -> None:
    shapes: list[tuple[int, ...]] = []

    def predict(images: Tensor) -> dict[str, Tensor]:
        shapes.append(tuple(images.shape))
        return {}

    pace = Pace(warm_up=0, bursts=3, burst=0, pause=0)
    found = time_batches(predict, (4, 8), [1, 2], torch.device("cpu"), pace)
    assert [(one.batch_size, one.runs) for one in found] == [(1, 3), (2, 3)]
    assert shapes == [(1, 3, 4, 8)] * 4 + [(2, 3, 4, 8)] * 4
    once = time_batches(predict, (4, 8), [1], torch.device("cpu"), Pace(0, 9, 0, 0, most=0))
    assert once[0].runs == 1


def test_percentiles_are_runs_that_were() -> None:
    found = summarised(4, [0.01, 0.02, 0.03, 0.04, 0.1])
    assert (found.p50, found.p90, found.p99) == pytest.approx((30, 100, 100))
    assert found.images_per_second == pytest.approx(4 * 5 / 0.2)
