"""A run, and programs on PATH that stand in for Slurm's."""

from __future__ import annotations

from pathlib import Path

import pytest
from launch_support import STAGE, make_run, write_dataset
from slurm_support import FakeSlurm

from rtdetr_slurm.runs.run import Run
from rtdetr_slurm.submission import reconcile


@pytest.fixture
def slurm(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> FakeSlurm:
    folder = tmp_path / "bin"
    folder.mkdir()
    monkeypatch.setenv("PATH", f"{folder}:/usr/bin:/bin")
    monkeypatch.setattr(reconcile, "LOOK_EVERY_S", 0.01)
    monkeypatch.setattr(reconcile, "LOOK_FOR_S", 1.0)
    return FakeSlurm(folder)


@pytest.fixture
def run(tmp_path: Path) -> Run:
    return make_run(tmp_path / "runs", STAGE)


@pytest.fixture
def train_spec(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A spec that `submit` accepts, of a data set in `data` of the current folder."""
    monkeypatch.chdir(tmp_path)
    return write_dataset(tmp_path / "data")
