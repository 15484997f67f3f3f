"""At which batch sizes a detector is timed, and with what."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from rtdetr_slurm.deploy.clocks import cpu_model, gpu_clocks, parse_clocks
from rtdetr_slurm.deploy.measure import batch_sizes


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
