"""`rtdetr` without a run, in a results folder that may be somebody's."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from engine_support import Workspace, error_of, stopping_at, workspace  # noqa: F401
from launch_support import STAGE, claim_results, make_run, write_checkpoint

from rtdetr_slurm.contract import Status
from rtdetr_slurm.engine.actions.train import train
from rtdetr_slurm.engine.process.by_hand import claimed_by_hand
from rtdetr_slurm.errors import RequestError
from rtdetr_slurm.plan.model import StageTask
from rtdetr_slurm.runs.claim import Start, Superseded, begin, new_claim, read_claim, start_of, take
from rtdetr_slurm.runs.processes import process_facts
from rtdetr_slurm.runs.status import StatusLog

# ruff: noqa: F811  (pytest fixtures are arguments of the name they are imported by)


@pytest.fixture
def folder(workspace: Workspace) -> Path:
    path = workspace.results / "train"
    path.mkdir(parents=True)
    return path


def files(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def refused(workspace: Workspace, capsys: pytest.CaptureFixture[str], *overrides: str) -> str:
    """What `rtdetr train` says, which writes nothing."""
    before = files(workspace.results / "train")
    code, error = error_of(capsys, "train", "-e", str(workspace.spec_file()), *overrides)
    assert code == 2
    assert files(workspace.results / "train") == before
    return error


def test_a_finished_training_is_left_as_it_is(
    workspace: Workspace, folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (folder / "experiment.yaml").write_text("mine")
    path = write_checkpoint(folder / "model_epoch_001.pth")
    StatusLog(folder / "status.json").write(Status.SUCCESS)
    error = refused(workspace, capsys)
    assert f"{folder} already holds checkpoints of a training: choose another" in error
    resumed = f"train.resume_training_checkpoint_path={path}"
    with claimed_by_hand(folder, workspace.load(resumed)) as start:
        held = read_claim(folder)
        assert held is not None
        assert (held.id, held.continues, held.ended) == (start.claim, True, False)


def test_what_a_run_has_claimed_is_left_to_it(
    workspace: Workspace, folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    stage = replace(STAGE, results_dir=str(folder))
    run = make_run(workspace.root / "runs", stage)
    claim_results(run, StageTask(stage))
    run.record("submitted", stage="train", job_id="7")
    assert f"in use by run {run.id} (stage train)" in refused(workspace, capsys)
    run.record("finished", stage="train", job_id="7", state="failed", failure_class="infra")
    with claimed_by_hand(folder, workspace.load()):
        pass


@pytest.fixture
def sleeper() -> Iterator[subprocess.Popen[bytes]]:
    with subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE) as process:
        yield process
        process.kill()


def test_a_second_one_is_refused_while_the_first_lives(
    workspace: Workspace,
    folder: Path,
    capsys: pytest.CaptureFixture[str],
    sleeper: subprocess.Popen[bytes],
) -> None:
    pid = sleeper.pid
    facts = process_facts(str(pid))
    take(folder, new_claim("h", restart=0, pid=pid, process_start=facts["process_start"]))
    error = refused(workspace, capsys)
    assert f"results_dir {folder} is in use by process {pid} on {facts['host']}" in error
    sleeper.kill()
    sleeper.wait()
    with claimed_by_hand(folder, workspace.load()) as start:
        assert start_of(os.environ) == start
    held = read_claim(folder)
    assert held is not None
    assert (held.id, held.ended) == (start.claim, True)
    assert start_of(os.environ) is None


def test_a_restart_by_hand_goes_on(
    workspace: Workspace, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_checkpoint(folder / "model_epoch_000.pth")
    with pytest.raises(RequestError), claimed_by_hand(folder, workspace.load()):
        pass
    monkeypatch.setenv("RTDETR_RESUME", "1")
    with claimed_by_hand(folder, workspace.load()):
        pass


@pytest.mark.parametrize("stop_at", [None, 1])
def test_a_start_that_is_no_longer_the_latest_writes_no_checkpoint(
    workspace: Workspace, folder: Path, stop_at: int | None
) -> None:
    """Neither at the end of an epoch nor when it is stopped."""
    begin(folder, new_claim("r:train", restart=1))
    once = ("train.num_epochs=1", "train.checkpoint_interval=1", "dataset.val_data_sources=null")
    session = replace(workspace.session(*once), start=Start("r:train", 0))
    if stop_at is not None:
        session = stopping_at(session, stop_at)
    with pytest.raises(Superseded, match=r"start 1 of this job, on .*one, start 0, writes no"):
        train(session)
    assert not list(folder.glob("*.pth"))
    assert not (folder / "status.json").exists()
