"""How long runs take: what is counted, and what is made of it."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import Tensor

from rtdetr_slurm.deploy.latency import (
    Pace,
    batch_sizes,
    cpu_model,
    gpu_clocks,
    parse_clocks,
    summarised,
    time_batches,
)


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


@pytest.mark.parametrize(
    ("asked", "sizes"),
    [((1, 4, 1), [1, 2, 4]), ((2, 6, 5), [2, 4, 5, 6]), ((3, 3, 3), [3]), ((1, 1), [1])],
)
def test_batch_sizes_are_within_the_profile(asked: tuple[int, ...], sizes: list[int]) -> None:
    assert batch_sizes(*asked) == sizes


def test_clocks_are_stated_or_the_reason(tmp_path: Path) -> None:
    assert parse_clocks("1980, 1980, 2619, 2619, 45\n") == {
        "clocks.sm": 1980,
        "clocks.max.sm": 1980,
        "clocks.mem": 2619,
        "clocks.max.mem": 2619,
        "temperature.gpu": 45,
    }
    assert parse_clocks("[N/A], 1, 2, 3, 4")["clocks.sm"] is None
    assert "No devices" in parse_clocks("No devices were found")["unknown"]
    assert gpu_clocks(torch.device("cpu")) is None
    path = tmp_path / "cpuinfo"
    path.write_text("model name\t: A B\ncpu MHz\t\t: 2100.5\n\nmodel name\t: A B\ncpu MHz\t: 99\n")
    assert cpu_model(path) == "A B, at 2100.5 MHz"
    assert cpu_model(tmp_path / "none")
