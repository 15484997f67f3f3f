"""Comparing all that is in two checkpoints."""

from __future__ import annotations

import os
import pickle
import zipfile
from pathlib import Path
from typing import Any

import pytest
import torch

from rtdetr_slurm.errors import RequestError
from rtdetr_slurm.runs.checkpoint_content import compare_checkpoints, read_content


def content(**changes: Any) -> dict[str, Any]:
    weight = torch.arange(6.0).view(2, 3)
    return {
        "model": {"weight": weight, "running": torch.tensor(0.5)},
        "optimizer": {"state": {0: {"step": torch.tensor(3.0), "moment": weight + 1}}},
        "rng": [{"cpu": torch.tensor([1, 2], dtype=torch.uint8), "cuda": None}],
        "epoch": 1,
        "losses": [float("nan"), 1.0],
        "spec": {"results_dir": "/runs/a/results", "data": "/runs/around"},
        **changes,
    }


def saved(path: Path, **changes: Any) -> Path:
    torch.save(content(**changes), path)
    return path


def test_equal_ones(tmp_path: Path) -> None:
    first = saved(tmp_path / "first.pth")
    found = compare_checkpoints(first, saved(tmp_path / "second.pth"), but={})
    assert found.same
    assert (found.tensors, found.values) == (5, 6)
    assert found.tensor_bytes == 4 * (6 + 1 + 1 + 6) + 2


@pytest.mark.parametrize(
    ("changes", "differences"),
    [
        ({"epoch": 2}, ["epoch"]),
        ({"epoch": 1.0}, ["epoch"]),
        ({"losses": [1.0, 1.0]}, ["losses.0"]),
        ({"more": 1}, ["more is in the second"]),
        ({"rng": []}, ["rng is in the second", "rng.0.cpu is in the first",
                       "rng.0.cuda is in the first"]),
        ({"model": {"weight": torch.arange(6.0).view(3, 2), "running": torch.tensor(0.5)}},
         ["model.weight"]),
        ({"model": {"weight": torch.arange(6).view(2, 3), "running": torch.tensor(0.5)}},
         ["model.weight"]),
        ({"model": {"weight": torch.arange(6.0).view(2, 3),
                    "running": torch.nextafter(torch.tensor(0.5), torch.tensor(1.0))}},
         ["model.running"]),
        ({"spec": {"results_dir": "/runs/b/results", "data": "/runs/around"}},
         ["spec.results_dir"]),
    ],
)  # fmt: skip
def test_what_differs_is_named(
    tmp_path: Path, changes: dict[str, Any], differences: list[str]
) -> None:
    first, second = saved(tmp_path / "first.pth"), saved(tmp_path / "second.pth", **changes)
    assert compare_checkpoints(first, second, but={}).differences == sorted(differences)


def test_folders_of_their_own(tmp_path: Path) -> None:
    """Only they are taken for each other, and no other path that begins alike."""
    first = saved(tmp_path / "first.pth")
    for data, differences in (("/runs/around", []), ("/runs/bround", ["spec.data"])):
        spec = {"results_dir": "/runs/b/results", "data": data}
        second = saved(tmp_path / "second.pth", spec=spec)
        assert compare_checkpoints(first, second, but={"/runs/b": "/runs/a"}).differences == (
            differences
        )


def test_nothing_in_a_file_runs(tmp_path: Path) -> None:
    class Evil:
        def __reduce__(self) -> Any:
            return os.system, (f"touch {tmp_path}/ran",)

    path = tmp_path / "evil.pth"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("archive/data.pkl", pickle.dumps({"x": Evil()}, 2))
    assert read_content(path)["x"].name == "posix.system"
    assert not (tmp_path / "ran").exists()
    path.write_text("no checkpoint")
    with pytest.raises(RequestError, match=r"evil\.pth cannot be read as a checkpoint"):
        read_content(path)
