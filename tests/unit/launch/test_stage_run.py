"""One start of one stage: what is written down, whatever happens below it."""

from __future__ import annotations

import os
import stat
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from launch_support import write_checkpoint
from os_support import files_of_at_most
from stage_run_support import ShellAllocation, ends, execute, line, quick, run, stage  # noqa: F401

from rtdetr_slurm.contract import FailureClass, Status
from rtdetr_slurm.errors import SiteError
from rtdetr_slurm.launch import results
from rtdetr_slurm.launch.arrivals import STARTED_FILE
from rtdetr_slurm.launch.node_errors import write_node_error
from rtdetr_slurm.launch.step import Step
from rtdetr_slurm.plan.model import Array, Stage, StageTask
from rtdetr_slurm.runs import artefacts
from rtdetr_slurm.runs.claim import Start, claim_id
from rtdetr_slurm.runs.run import Run, freeze_spec
from rtdetr_slurm.runs.status import StatusLog

# ruff: noqa: F811  (pytest fixtures are arguments of the name they are imported by)


@pytest.mark.parametrize(("mask", "folder", "file"), [(0, 0o755, 0o644), (0o077, 0o700, 0o600)])
def test_others_do_not_write_what_a_start_goes_by(
    run: Run, stage: Stage, mask: int, folder: int, file: int
) -> None:
    array = replace(stage, array=Array(2))
    before = os.umask(mask)
    try:
        execute(run, array, ShellAllocation("true"), index=1)
    finally:
        os.umask(before)
    job = run.job_dir("train.1")
    modes = {p.name: stat.S_IMODE(p.stat().st_mode) for p in (job, *job.iterdir())}
    files = dict.fromkeys(("spec.yaml", "inputs.json", "alive"), file)
    assert modes == {"train.1": folder, "node-0": folder, **files}


def test_each_checkpoint_is_read_once_at_the_end(
    run: Run, stage: Stage, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Once for its checksums, and those that are recorded once more for their digests."""
    folder = Path(stage.results_dir)
    status = StatusLog(folder / "status.json", Start(claim_id(run.id, "train")))
    for epoch in range(3):
        write_checkpoint(folder / f"model_epoch_{epoch:03d}.pth")
        status.write(Status.RUNNING, epoch=epoch, kpi={"val_mAP": 0.5 - 0.1 * epoch})
    read: list[str] = []

    def noted(name: str, real: Callable[[Path], Any], path: Path) -> Any:
        read.append(f"{name} {path.name}")
        return real(path)

    for module, name in ((results, "verify_checkpoint"), (artefacts, "sha256_of")):
        monkeypatch.setattr(module, name, partial(noted, name, getattr(module, name)))
    assert execute(run, stage, ShellAllocation(line(Status.SUCCESS))) == 0
    assert sorted(read) == [
        "sha256_of model_epoch_000.pth",
        "sha256_of model_epoch_002.pth",
        "verify_checkpoint model_epoch_000.pth",
        "verify_checkpoint model_epoch_002.pth",
    ]


def test_an_end_without_room_is_told_as_such(
    run: Run, stage: Stage, capfd: pytest.CaptureFixture[str]
) -> None:
    """The spec of the stage cannot be written; everything small still can."""
    spec = {"dataset": {"names": ["x" * 100] * 100}}
    run = replace(run, manifest=replace(run.manifest, spec=freeze_spec("train.yaml", [], spec)))
    with files_of_at_most(5000):
        assert execute(run, stage, ShellAllocation("exit 0")) == 1
    events, last = ends(run, stage)
    assert events == ["submitted", "started", "finished"]
    assert last["reason"].startswith(f"{run.path}/jobs/train/spec.yaml: File too large")
    assert "Traceback" not in capfd.readouterr().err


def test_success(run: Run, stage: Stage) -> None:
    write_checkpoint(Path(stage.results_dir) / "model_epoch_000.pth")
    assert execute(run, stage, ShellAllocation(line(Status.SUCCESS))) == 0
    events, last = ends(run, stage)
    assert events == ["submitted", "started", "resolved", "finished"]
    assert run.events()[-1]["state"] == "success"
    assert last["status"] == "SUCCESS"


def test_success_of_an_earlier_run_in_the_same_folder_is_not_taken_for_ours(
    run: Run, stage: Stage
) -> None:
    write_checkpoint(Path(stage.results_dir) / "model_epoch_000.pth")
    StatusLog(Path(stage.results_dir) / "status.json").write(Status.SUCCESS)
    assert execute(run, stage, ShellAllocation("true")) == 1
    assert ends(run, stage)[1]["status"] == "FAILURE"


def test_an_engine_that_dies_without_a_word(run: Run, stage: Stage) -> None:
    run.log_path("train", "77").write_text("epoch 1\ntorch.OutOfMemoryError: CUDA out of memory\n")
    assert execute(run, stage, ShellAllocation("kill -9 $$")) == 1
    events, last = ends(run, stage)
    assert events[-1] == "finished"
    assert (last["status"], last["failure_class"]) == ("FAILURE", "oom_gpu")
    assert last["reason"] == "log: torch.OutOfMemoryError: CUDA out of memory"


def test_what_a_node_refused_becomes_the_reason(
    run: Run, stage: Stage, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refusing(self: Step) -> list[str]:
        error = SiteError("port 20077 cannot be used")
        write_node_error(self.run, self.allocation.task, 0, "n", error)
        return ["/bin/false"]

    monkeypatch.setattr(Step, "command", refusing)
    stage = replace(stage, launch=replace(stage.launch, requeue=False))
    assert execute(run, stage, ShellAllocation("")) == 1
    last = ends(run, stage)[1]
    assert (last["failure_class"], last["reason"]) == (
        FailureClass.INFRA.value,
        "node 0 (n): port 20077 cannot be used",
    )


def test_a_wrong_allocation_starts_nothing(run: Run, stage: Stage, tmp_path: Path) -> None:
    host = ShellAllocation(f"touch {tmp_path}/started")
    host.refusal = "the allocation has 1 nodes"
    assert execute(run, stage, host) == 1
    assert host.quiet, "Slurm has sent its mail about this start; the next is to send none"
    assert not (tmp_path / "started").exists()
    assert ends(run, stage)[1]["reason"] == "the allocation has 1 nodes"


def test_a_results_folder_that_cannot_be_made(run: Run, stage: Stage, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    stage = replace(stage, results_dir=str(tmp_path / "file" / "results"))
    assert execute(run, stage, ShellAllocation("true")) == 1
    end = run.events()[-1]
    assert (end["event"], end["failure_class"]) == ("finished", "config")
    assert "cannot make results_dir" in end["reason"]


def test_a_fault_of_the_launch_itself_is_written_down(
    run: Run, stage: Stage, monkeypatch: pytest.MonkeyPatch
) -> None:
    def faulty(self: Step) -> list[str]:
        raise RuntimeError("a bug")

    monkeypatch.setattr(Step, "command", faulty)
    with pytest.raises(RuntimeError, match="a bug"):
        execute(run, stage, ShellAllocation(""))
    events, last = ends(run, stage)
    assert events[-1] == "finished"
    assert "the launch failed: RuntimeError('a bug')" in last["reason"]


def test_records_of_an_earlier_start_are_gone(run: Run, stage: Stage) -> None:
    run.node_dir(StageTask(stage), 0).mkdir(parents=True)
    write_node_error(run, StageTask(stage), 0, "n", SiteError("of an earlier start"))
    write_checkpoint(Path(stage.results_dir) / "model_epoch_000.pth")
    assert execute(run, stage, ShellAllocation(line(Status.SUCCESS))) == 0


def test_the_real_launch_runs_by_itself(run: Run) -> None:
    """As the batch script calls it, in a process of its own; the node wrapper starts the engine."""
    argv = [sys.executable, "-m", "rtdetr_slurm.controller", "stage", str(run.path), "train"]
    env = os.environ | {"RTDETR_SLURM_LOCAL_JOB_ID": "77", "CUDA_VISIBLE_DEVICES": ""}
    done = subprocess.run(argv, env=env, capture_output=True, check=False)
    assert done.returncode == 1
    assert run.events()[-1]["event"] == "finished"
    assert (run.job_dir("train") / "node-0" / STARTED_FILE).exists(), "the engine has begun"
