"""A start that is asked to stop, or ended, before its action is done: what becomes of the job."""

from __future__ import annotations

import errno
import os
import signal
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from launch_support import claim_results, write_checkpoint
from stage_run_support import (  # noqa: F401
    STOPPABLE,
    ShellAllocation,
    ends,
    execute,
    line,
    quick,
    run,
    stage,
    when_started,
)

from rtdetr_slurm.contract import Env, FailureClass, Status
from rtdetr_slurm.errors import SiteError
from rtdetr_slurm.launch.allocation import StopReason
from rtdetr_slurm.launch.step import StopRequest
from rtdetr_slurm.launch.verdict import MAX_STARTS_IN_VAIN
from rtdetr_slurm.plan.model import Array, Endurance, Stage, StageTask
from rtdetr_slurm.runs.alive import last_alive
from rtdetr_slurm.runs.run import Run
from rtdetr_slurm.runs.state import StageState
from rtdetr_slurm.runs.summary import read_summary

# ruff: noqa: F811  (pytest fixtures are arguments of the name they are imported by)


@pytest.mark.parametrize("signum", [signal.SIGUSR2, signal.SIGTERM])
def test_either_signal_stops_the_training_and_requeues_the_job(
    run: Run, stage: Stage, signum: int
) -> None:
    write_checkpoint(Path(stage.results_dir) / "interrupted_epoch_003_step_000002.pth")
    host = ShellAllocation(STOPPABLE)
    when_started(run, lambda: os.kill(os.getpid(), signum))
    assert execute(run, stage, host) == 75
    events, last = ends(run, stage)
    assert events == ["submitted", "started", "resolved", "requeued"]
    assert host.requeued == 1
    assert last["status"] == "PREEMPTED"
    assert "goes on from interrupted_epoch_003_step_000002.pth" in run.events()[-1]["reason"]


def test_a_cancelled_training_is_stopped_and_does_not_come_back(run: Run, stage: Stage) -> None:
    host = ShellAllocation(STOPPABLE)

    def cancel() -> None:
        run.record("cancelling", stage="train", job_id="77")
        os.kill(os.getpid(), signal.SIGTERM)

    when_started(run, cancel)
    assert execute(run, stage, host) == 1
    events, last = ends(run, stage)
    assert events[-1] == "finished"
    assert run.events()[-1]["state"] == "cancelled"
    assert (last["status"], last["failure_class"]) == ("FAILURE", "cancelled")
    assert host.requeued == 0


@pytest.mark.parametrize("event", ["cancelling", "withdrawn", "unclear"])
def test_what_was_cancelled_before_it_started_ends_at_once(
    run: Run, stage: Stage, tmp_path: Path, event: str
) -> None:
    """Also when nobody knew of the job then: sbatch was still at work, or gave no clear answer."""
    run.record(event, stage="train")
    assert execute(run, stage, ShellAllocation(f"touch {tmp_path}/started")) == 1
    assert not (tmp_path / "started").exists()
    end = run.events()[-1]
    assert (end["event"], end["state"]) == ("finished", "cancelled")
    summary = read_summary(run.path)
    assert summary is not None
    assert summary.state is StageState.CANCELLED


def test_a_damaged_record_keeps_no_job_from_its_start(
    run: Run, stage: Stage, capfd: pytest.CaptureFixture[str]
) -> None:
    (run.path / "events" / "other.jsonl").write_text("no event\n")
    write_checkpoint(Path(stage.results_dir) / "model_epoch_000.pth")
    assert execute(run, stage, ShellAllocation(line(Status.SUCCESS))) == 0
    assert "whether somebody has cancelled it is not known" in capfd.readouterr().err


@pytest.mark.parametrize(
    ("content", "heard", "said"),
    [
        (None, None, "this is not a regular file"),
        (b"\xff\xfe", None, "is no signal that asks for an end"),
        (b"KILL\x1b\n", None, r"'KILL\x1b' is no signal that asks for an end"),
        (b"\xff\nTERM\n", signal.SIGTERM, "is no signal that asks for an end"),
    ],
)
def test_a_damaged_note_of_a_signal_keeps_no_job_from_its_start(
    tmp_path: Path,
    capfd: pytest.CaptureFixture[str],
    content: bytes | None,
    heard: int | None,
    said: str,
) -> None:
    note = tmp_path / "warned-8-0"
    note.mkdir() if content is None else note.write_bytes(content)
    assert StopRequest({Env.WARNED: str(note)}).signum == heard
    told = capfd.readouterr().err
    assert str(note) in told
    assert said in told
    assert told.count("\n") == 1


def test_a_cancel_that_was_refused_does_not_end_an_interrupted_run(run: Run, stage: Stage) -> None:
    write_checkpoint(Path(stage.results_dir) / "interrupted_epoch_003_step_000002.pth")
    host = ShellAllocation(STOPPABLE)

    def refused() -> None:
        for event in ("cancelling", "not_cancelled"):
            run.record(event, stage="train", job_id="77")
        os.kill(os.getpid(), signal.SIGUSR2)

    when_started(run, refused)
    assert execute(run, stage, host) == 75
    assert host.requeued == 1


def test_a_cancelled_task_does_not_end_its_neighbour(run: Run, stage: Stage) -> None:
    stage = replace(stage, array=Array(2))
    claim_results(run, StageTask(stage, 1), restart=0)
    write_checkpoint(Path(stage.results_dir) / "1" / "interrupted_epoch_003_step_000002.pth")
    host = ShellAllocation(STOPPABLE)

    def cancel() -> None:
        run.record("cancelling", stage="train", task=0, job_id="77_0")
        os.kill(os.getpid(), signal.SIGTERM)

    when_started(run, cancel)
    assert execute(run, stage, host, index=1) == 75
    assert run.events()[-1]["event"] == "requeued"


def test_what_slurm_ends_itself_is_not_signalled_again(run: Run, stage: Stage) -> None:
    host = ShellAllocation(STOPPABLE.replace("exit 9", "true").replace("200", "20"))
    host.reason = StopReason(FailureClass.CANCELLED, by_scheduler=True)
    when_started(run, lambda: os.kill(os.getpid(), signal.SIGTERM))
    execute(run, stage, host)
    assert ends(run, stage)[1]["failure_class"] == "cancelled"
    statuses = (Path(stage.results_dir) / "status.json").read_text()
    assert "PREEMPTED" not in statuses, "the step has got a stop signal"


def test_a_training_that_does_not_stop_is_killed_and_goes_on_from_its_last_epoch(
    run: Run, stage: Stage
) -> None:
    stage = replace(stage, launch=replace(stage.launch, signal_lead_s=1))
    write_checkpoint(Path(stage.results_dir) / "model_epoch_004.pth")
    host = ShellAllocation("trap '' URG; sleep 60 & wait")
    when_started(run, lambda: os.kill(os.getpid(), signal.SIGUSR2))
    assert execute(run, stage, host) == 75
    assert "goes on from model_epoch_004.pth" in run.events()[-1]["reason"]
    assert ends(run, stage)[1]["status"] == "PREEMPTED"


def test_starts_that_get_no_further_come_to_an_end(run: Run, stage: Stage, tmp_path: Path) -> None:
    """Whether the training writes its checkpoint once more where it began, or Slurm itself puts
    the job back each time and nobody is asked."""
    path = Path(stage.results_dir) / "interrupted_epoch_003_step_000002.pth"
    write_checkpoint(path)
    for restart in range(MAX_STARTS_IN_VAIN):
        host = ShellAllocation(f"touch {path}; exit 75")
        host.restart = restart
        last = restart == MAX_STARTS_IN_VAIN - 1
        assert execute(run, stage, host) == (1 if last else 75)
    end = run.events()[-1]
    assert (end["event"], end["failure_class"]) == ("finished", "preempted")
    assert "10 starts in a row have not got further" in end["reason"]
    host = ShellAllocation(f"touch {tmp_path}/started")
    host.restart = MAX_STARTS_IN_VAIN
    assert execute(run, stage, host) == 1
    assert not (tmp_path / "started").exists()


def test_an_infra_failure_goes_back_without_its_node_and_not_for_ever(
    run: Run, stage: Stage
) -> None:
    failing = f"{line(Status.FAILURE, failure_class='infra', reason='ncclSystemError')}; exit 1"
    for restart in range(3):
        host = ShellAllocation(failing)
        host.restart = restart
        assert execute(run, stage, host) == (1 if restart == 2 else 75)
        assert host.left_out == ([("n0",), ("n1", "n0"), ()])[restart]
        last = ends(run, stage)[1]
        assert last["status"] == ("FAILURE" if restart == 2 else "PREEMPTED")
    end = run.events()[-1]
    assert (end["event"], end["failure_class"]) == ("finished", "infra")
    assert "tried again 2 times already" in end["reason"]


def test_a_start_that_reaches_the_end_of_the_hours_is_stopped_in_time(
    run: Run, stage: Stage
) -> None:
    endurance = Endurance(max_hours=21.5 / 3600)
    stage = replace(stage, launch=replace(stage.launch, endurance=endurance, signal_lead_s=1))
    run.record("started", stage="train", restart=0, seconds_before=20.0)
    host = ShellAllocation(STOPPABLE)
    host.restart = 1
    assert execute(run, stage, host) == 1
    end = run.events()[-1]
    assert (end["event"], end["failure_class"]) == ("finished", "timeout")
    assert "(job.max_hours)" in end["reason"]


def test_a_start_that_is_killed_has_left_signs_of_life(run: Run, stage: Stage) -> None:
    """Without a limit on hours, too; the next start writes down when the last one was."""
    execute(run, stage, ShellAllocation("sleep 0.1; exit 1"))
    sign = last_alive(run, StageTask(stage))
    assert sign is not None
    again = ShellAllocation("true")
    again.restart = 1
    execute(run, stage, again)
    first, second = [one for one in run.events() if one["event"] == "started"]
    assert "last_sign" not in first
    assert second["last_sign"] == sign.isoformat()


def test_when_slurm_ends_the_job_itself_its_kill_wait_is_all_there_is(
    run: Run, stage: Stage
) -> None:
    """However long the lead before the time limit is: the end is written down before KILL."""
    host = ShellAllocation("trap '' URG; sleep 60 & wait")
    host.killed_after = 1
    host.reason = StopReason(FailureClass.CANCELLED, by_scheduler=True)
    when_started(run, lambda: os.kill(os.getpid(), signal.SIGTERM))
    begun = time.monotonic()
    execute(run, stage, host)
    assert time.monotonic() - begun < stage.launch.signal_lead_s / 4
    assert ends(run, stage)[1]["failure_class"] == "cancelled"


def test_a_refused_requeue_is_a_failure_that_says_so(run: Run, stage: Stage) -> None:
    class Disabled(ShellAllocation):
        def requeue(self, _exclude: Sequence[str] = (), /) -> None:
            raise SiteError("scontrol: Requested operation is presently disabled")

    write_checkpoint(Path(stage.results_dir) / "interrupted_epoch_003_step_000002.pth")
    host = Disabled(STOPPABLE)
    when_started(run, lambda: os.kill(os.getpid(), signal.SIGUSR2))
    assert execute(run, stage, host) == 1
    events, last = ends(run, stage)
    assert events[-2:] == ["requeued", "finished"]
    assert (last["status"], last["failure_class"]) == ("FAILURE", "preempted")
    assert "the requeue was refused: scontrol: Requested operation" in last["reason"]


def test_a_full_disk_does_not_keep_the_job_from_its_requeue(
    run: Run, stage: Stage, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    def full(*args: Any, **data: Any) -> None:
        raise OSError(errno.ENOSPC, "No space left on device", "events/x.jsonl")

    write_checkpoint(Path(stage.results_dir) / "interrupted_epoch_003_step_000002.pth")
    monkeypatch.setattr(Run, "record", full)
    host = ShellAllocation("exit 75")
    assert execute(run, stage, host) == 75
    assert host.requeued == 1
    assert "cannot read or write events/x.jsonl: No space left on device" in capfd.readouterr().err


def test_a_start_after_the_end_takes_the_summary_back(run: Run, stage: Stage) -> None:
    """An administrator may requeue a job that has ended."""
    assert execute(run, stage, ShellAllocation("exit 1")) == 1
    summary = read_summary(run.path)
    assert summary is not None
    assert summary.state is StageState.FAILED
    script = f"test ! -e {run.path}/summary.json && {line(Status.SUCCESS)}"
    write_checkpoint(Path(stage.results_dir) / "model_epoch_000.pth")
    again = ShellAllocation(script)
    again.restart = 1
    assert execute(run, stage, again) == 0
    summary = read_summary(run.path)
    assert summary is not None
    assert summary.state is StageState.SUCCESS
