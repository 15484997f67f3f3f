"""A start and what it finds in its results folder: whose that is."""

from __future__ import annotations

import errno
import sys
from pathlib import Path
from typing import Any

import pytest
from launch_support import claim_results, make_run, write_checkpoint
from stage_run_support import ShellAllocation, execute, line, quick, run, stage  # noqa: F401

from rtdetr_slurm.contract import Status
from rtdetr_slurm.plan.model import Stage, StageTask
from rtdetr_slurm.runs.run import Run
from rtdetr_slurm.runs.status import StatusLog

# ruff: noqa: F811  (pytest fixtures are arguments of the name they are imported by)


def files(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


@pytest.fixture
def queued(tmp_path: Path, stage: Stage) -> Run:
    """Submitted, and never started."""
    made = make_run(tmp_path, stage)
    made.record("submitted", stage="train", job_id="77")
    claim_results(made, StageTask(stage))
    return made


@pytest.mark.parametrize("restart", [0, 1, 3])
def test_another_trainings_checkpoints_are_never_adopted(
    queued: Run, stage: Stage, tmp_path: Path, restart: int
) -> None:
    """However often the job was requeued before it got so far as to look at its folder; and
    nothing is written there, also not that the start was refused."""
    folder = Path(stage.results_dir)
    write_checkpoint(folder / "model_epoch_009.pth")
    StatusLog(folder / "status.json").write(Status.SUCCESS)
    before = files(folder)
    host = ShellAllocation(f"touch {tmp_path}/engine; {line(Status.SUCCESS)}")
    host.restart = restart
    assert execute(queued, stage, host) == 1
    assert files(folder) == before
    assert not (tmp_path / "engine").exists()
    end = queued.events()[-1]
    assert (end["event"], end["failure_class"]) == ("finished", "config")
    assert "already holds checkpoints of a training" in end["reason"]
    assert "checkpoints" not in end


def test_a_start_goes_on_from_what_an_earlier_one_has_left(
    queued: Run, stage: Stage, tmp_path: Path
) -> None:
    assert execute(queued, stage, ShellAllocation(f"echo $RTDETR_RESUME > {tmp_path}/0")) == 1
    write_checkpoint(Path(stage.results_dir) / "model_epoch_000.pth")
    again = ShellAllocation(f"echo $RTDETR_RESUME $RTDETR_CLAIM $RTDETR_RESTART > {tmp_path}/1")
    again.restart = 1
    execute(queued, stage, again)
    assert (tmp_path / "0").read_text() == "\n"
    assert (tmp_path / "1").read_text() == f"1 {queued.id}:train 1\n"


def test_a_folder_that_another_run_has_claimed_is_left_alone(run: Run, stage: Stage) -> None:
    folder = Path(stage.results_dir)
    (folder / "claim.json").unlink()
    other = make_run(run.path.parent, stage, run_id="train-20260102-030405-0001")
    claim_results(other, StageTask(stage))
    before = files(folder)
    assert execute(run, stage, ShellAllocation(line(Status.SUCCESS))) == 1
    assert files(folder) == before
    assert f"belongs to run {other.id} (stage train)" in run.events()[-1]["reason"]


def test_a_start_on_a_node_that_was_cut_off_stops_writing(run: Run, stage: Stage) -> None:
    """Slurm has started the job anew on other nodes while it went on."""
    later = (
        f"{sys.executable} -c 'from rtdetr_slurm.runs.claim import *; from pathlib import Path; "
        f'begin(Path("{stage.results_dir}"), new_claim("{run.id}:train", restart=1))\''
    )
    host = ShellAllocation(f"{later}; {line(Status.RUNNING)} 2>&1 | tail -1; exit 1")
    assert execute(run, stage, host) == 1
    assert not (Path(stage.results_dir) / "status.json").exists()


def test_a_results_folder_that_is_full_is_named(
    run: Run, stage: Stage, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: Any) -> None:
        raise OSError(errno.EDQUOT, "Disk quota exceeded")

    monkeypatch.setattr("rtdetr_slurm.launch.results.begin", full)
    assert execute(run, stage, ShellAllocation("true")) == 1
    assert "is not writable on this node: Disk quota exceeded" in run.events()[-1]["reason"]
