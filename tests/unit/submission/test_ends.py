"""Jobs that were killed before they could write down their end."""

from __future__ import annotations

import errno
import json
import os
import signal
import subprocess
import sys
import threading
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import Any

import pytest
from launch_support import claim_results, write_checkpoint
from slurm_support import FakeSlurm, queue_line, submitted

from rtdetr_slurm.contract import FailureClass, Status
from rtdetr_slurm.plan.model import StageTask
from rtdetr_slurm.runs.claim import Start, Superseded, claim_id
from rtdetr_slurm.runs.failures import Failure
from rtdetr_slurm.runs.run import Run, open_run
from rtdetr_slurm.runs.state import StageState, is_to_end
from rtdetr_slurm.runs.status import StatusLog, read_status
from rtdetr_slurm.runs.summary import RunReport
from rtdetr_slurm.submission.sending import token
from rtdetr_slurm.submission.survey import survey_run

SILENT = "the job itself wrote down no end"


def task_of(run: Run) -> StageTask:
    return StageTask(run.plan.stages[0])


def started(run: Run, restart: int = 0) -> StatusLog:
    """A training that is under way; its status.json."""
    submitted(run)
    claim_results(run, task_of(run), restart=restart)
    run.record("started", stage="train", job_id="42", restart=restart)
    path = task_of(run).results_dir / "status.json"
    log = StatusLog(path, Start(claim_id(run.id, "train"), restart))
    log.write(Status.STARTED)
    log.write(Status.RUNNING, epoch=3, max_epoch=9)
    write_checkpoint(path.with_name("model_epoch_003.pth"))
    return log


def says(slurm: FakeSlurm, run: Run, state: str) -> None:
    slurm.answer("squeue", f"echo '{queue_line(run, '42', state)}'")


def finished(run: Run) -> list[dict[str, Any]]:
    return [event for event in run.events() if event["event"] == "finished"]


@pytest.mark.parametrize(
    ("state", "failure_class"),
    [
        ("NODE_FAIL", FailureClass.INFRA),
        ("TIMEOUT", FailureClass.TIMEOUT),
        ("PREEMPTED", FailureClass.PREEMPTED),
        ("OUT_OF_MEMORY", FailureClass.OOM_HOST),
        ("CANCELLED", FailureClass.CANCELLED),
        ("FAILED", FailureClass.UNKNOWN),
    ],
)
def test_the_next_reader_writes_the_last_line(
    slurm: FakeSlurm, run: Run, state: str, failure_class: FailureClass
) -> None:
    log = started(run, restart=2)
    says(slurm, run, state)
    report, notes = survey_run(run.path)
    assert notes == (f"{run.id}: train ended without a word, which is recorded now",)
    last = read_status(log.path)[-1]
    assert (last["status"], last["failure_class"]) == ("FAILURE", failure_class.value)
    assert last["reason"].endswith(SILENT)
    assert last["restart"] == 2
    [end] = finished(run)
    assert (end["failure_class"], end["reason"]) == (failure_class.value, last["reason"])
    assert (end["restart"], end["job_id"]) == (2, "42")
    [stage] = report.stages
    assert stage.state.ended
    assert stage.results.last == log.path.with_name("model_epoch_003.pth")
    # What is left of the job, on a node that is only cut off, writes no more.
    with pytest.raises(Superseded, match="found to have ended"):
        log.write(Status.RUNNING)
    before = log.path.read_text()
    asked = len(slurm.calls("squeue"))
    again, notes = survey_run(run.path)
    assert (again.state, notes, log.path.read_text()) == (report.state, (), before)
    assert len(slurm.calls("squeue")) == asked, "it has ended, as its record says now"


def test_an_end_that_is_recorded_late_says_when_it_was(slurm: FakeSlurm, run: Run) -> None:
    submitted(run)
    says(slurm, run, "CANCELLED")
    when = datetime.now().replace(microsecond=0)
    comment = f"Comment={token(run.id, 'train')}"
    told = f"JobId=42 JobState=CANCELLED EndTime={when.isoformat()} {comment}"
    slurm.answer("scontrol", f"echo '{told}'")
    survey_run(run.path)
    [end] = finished(run)
    assert datetime.fromisoformat(end["ended"]) == when.astimezone()


@pytest.mark.parametrize("answer", ["true", "exit 1", "RUNNING", "PENDING", "COMPLETING"])
def test_only_an_end_is_an_end(slurm: FakeSlurm, run: Run, answer: str) -> None:
    """Not silence, not a controller that does not answer, not a job that is being ended."""
    log = started(run)
    before = log.path.read_text()
    if answer.isupper():
        says(slurm, run, answer)
    else:
        slurm.answer("squeue", answer)
    assert not survey_run(run.path)[0].ended
    assert (log.path.read_text(), finished(run)) == (before, [])


def test_another_users_run_is_only_read(
    slurm: FakeSlurm, run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also by an administrator, who may write anywhere."""
    log = started(run)
    before = log.path.read_text()
    says(slurm, run, "NODE_FAIL")
    monkeypatch.setattr(os, "geteuid", lambda: run.path.stat().st_uid + 1)
    assert survey_run(run.path)[0].state is StageState.FAILED
    assert (log.path.read_text(), finished(run)) == (before, [])


def test_a_last_word_that_comes_while_slurm_is_asked_is_heard(slurm: FakeSlurm, run: Run) -> None:
    """The record is read before Slurm is asked; the job ends in between."""
    started(run)
    end = {
        "schema_version": 1,
        "timestamp": "2999-01-01T00:00:00+00:00",
        "event": "finished",
        "stage": "train",
        "job_id": "42",
        "state": "failed",
        "failure_class": "oom_gpu",
        "reason": "too large",
    }
    word = f"echo '{json.dumps(end)}' > {run.path}/events/job.jsonl"
    slurm.answer("squeue", f"{word}; echo '{queue_line(run, '42', 'FAILED')}'")
    report, notes = survey_run(run.path)
    assert report.stages[0].failure == Failure(FailureClass.OOM_GPU, "too large")
    assert (notes, len(finished(run))) == ((), 1)


def test_a_folder_that_is_anothers_by_now_is_left_alone(slurm: FakeSlurm, run: Run) -> None:
    log = started(run)
    (log.path.parent / "claim.json").unlink()
    other = open_run(run.path)
    claim_results(other, task_of(other), job_id="7")  # claimed, and no start of it has begun
    before = log.path.read_text()
    says(slurm, run, "NODE_FAIL")
    assert survey_run(run.path)[0].state is StageState.FAILED
    assert log.path.read_text() == before
    assert len(finished(run)) == 1


def test_of_several_readers_at_once_one_writes(slurm: FakeSlurm, run: Run) -> None:
    log = started(run)
    says(slurm, run, "NODE_FAIL")
    reports: list[RunReport] = []
    threads = [
        threading.Thread(target=lambda: reports.append(survey_run(run.path)[0])) for _ in range(4)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert [report.state for report in reports] == [StageState.FAILED] * 4
    assert [line["status"] for line in read_status(log.path)].count("FAILURE") == 1
    assert len(finished(run)) == 1


def test_the_last_word_of_a_requeued_job_that_was_cancelled_in_the_queue(
    slurm: FakeSlurm, run: Run
) -> None:
    log = started(run)
    log.write(Status.PREEMPTED)
    run.record("requeued", stage="train", job_id="42", restart=0)
    says(slurm, run, "CANCELLED")
    assert survey_run(run.path)[0].state is StageState.CANCELLED
    last = read_status(log.path)[-1]
    assert (last["status"], last["failure_class"]) == ("FAILURE", "cancelled")


def test_what_never_started_has_an_end_and_no_status(slurm: FakeSlurm, run: Run) -> None:
    submitted(run)
    claim_results(run, task_of(run))
    says(slurm, run, "CANCELLED")
    report, notes = survey_run(run.path)
    assert (report.state, len(notes), len(finished(run))) == (StageState.CANCELLED, 1, 1)
    assert not (task_of(run).results_dir / "status.json").exists()


def test_a_held_run_shows_nothing_of_what_it_finds(slurm: FakeSlurm, run: Run) -> None:
    """TAO has trained in the folder, before or meanwhile; its lines have no timestamp."""
    folder = task_of(run).results_dir
    submitted(run)
    claim_results(run, task_of(run))
    tao = '{"status": "RUNNING", "epoch": 71, "max_epoch": 71}\n{"status": "SUCCESS"}\n'
    (folder / "status.json").write_text(tao)
    write_checkpoint(folder / "model_epoch_071.pth")
    says(slurm, run, "PENDING")
    [stage] = survey_run(run.path)[0].stages
    assert (stage.state, stage.progress.epoch, stage.results.last) == (
        StageState.QUEUED,
        None,
        None,
    )
    slurm.answer("squeue", "true")  # forgotten
    assert survey_run(run.path)[0].state is StageState.UNKNOWN
    says(slurm, run, "COMPLETED")
    assert survey_run(run.path)[0].state is StageState.FAILED
    assert (folder / "status.json").read_text() == tao


def test_a_reader_that_is_killed_leaves_nothing_torn(run: Run) -> None:
    """The end is recorded whole, or not at all."""
    submitted(run)
    code = "import os, signal, sys; from pathlib import Path; import rtdetr_slurm.files as files; "
    code += "files.os.link = lambda *a: os.kill(os.getpid(), signal.SIGKILL); "
    code += "from rtdetr_slurm.runs.events import record_once; "
    code += "record_once(Path(sys.argv[1]), 'end-train-0', 'finished', stage='train')"
    argv = [sys.executable, "-c", code, str(run.path / "events")]
    assert subprocess.run(argv, check=False).returncode == -signal.SIGKILL
    assert finished(run) == []
    assert not list(Path(run.path / "events").glob("end-*"))


def sent(run: Run, minutes_ago: float) -> None:
    """Record that the training was being sent, by a process that was killed in it."""
    moment = datetime.now(timezone.utc) - timedelta(minutes=minutes_ago)
    event = {"schema_version": 1, "timestamp": moment.isoformat(), "event": "submitting"}
    (run.path / "events" / "killed.jsonl").write_text(json.dumps({**event, "stage": "train"}))


def test_a_job_that_nobody_knows_is_not_looked_for_for_ever(slurm: FakeSlurm, run: Run) -> None:
    sent(run, minutes_ago=61)
    report, notes = survey_run(run.path)
    assert report.state is StageState.UNKNOWN
    [note] = notes
    assert "nobody knows a job of it: should one turn up, it ends at once" in note
    assert is_to_end(run.events())
    asked = [len(slurm.calls(program)) for program in ("squeue", "sacct")]
    assert asked == [1, 1]
    again, notes = survey_run(run.path)
    assert (again.state, notes) == (StageState.UNKNOWN, ())
    assert [len(slurm.calls(program)) for program in ("squeue", "sacct")] == asked
    # Should it turn up, it is told of as any other.
    run.record("started", stage="train", job_id="42", restart=0)
    says(slurm, run, "RUNNING")
    assert survey_run(run.path)[0].stages[0].detail == "cancelling"


@pytest.mark.parametrize(
    ("minutes_ago", "queue"), [(50, "true"), (61, "exit 1"), (61, "PENDING"), (61, "RUNNING")]
)
def test_what_may_still_be_known_is_looked_for_again(
    slurm: FakeSlurm, run: Run, minutes_ago: float, queue: str
) -> None:
    sent(run, minutes_ago)
    if queue.isupper():
        says(slurm, run, queue)
    else:
        slurm.answer("squeue", queue)
    survey_run(run.path)
    assert not is_to_end(run.events())
    before = len(slurm.calls("squeue"))
    survey_run(run.path)
    assert len(slurm.calls("squeue")) > before


def test_another_users_lost_job_is_not_given_up(
    slurm: FakeSlurm, run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    sent(run, minutes_ago=61)
    monkeypatch.setattr(os, "geteuid", lambda: run.path.stat().st_uid + 1)
    survey_run(run.path)
    assert not is_to_end(run.events())


def test_the_reader_tells_of_a_failure_in_the_jobs_place(
    slurm: FakeSlurm, run: Run, tmp_path: Path
) -> None:
    hook = tmp_path / "hook"
    hook.write_text('#!/bin/sh\necho "$1" >> "$0.told"\n')
    hook.chmod(0o755)
    path = run.path / "run.json"
    record = json.loads(path.read_text())
    record["plan"]["notify_command"] = [str(hook)]
    path.write_text(json.dumps(record))
    started(run)
    says(slurm, run, "NODE_FAIL")
    for _ in range(2):
        survey_run(run.path)
    assert (tmp_path / "hook.told").read_text().split() == ["failed", "ended"]


def test_what_one_reader_could_not_write_down_the_next_one_does(
    slurm: FakeSlurm, run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    log = started(run)
    says(slurm, run, "NODE_FAIL")
    with monkeypatch.context() as full:

        def refuse(*_: Any) -> None:
            raise OSError(errno.ENOSPC, "No space left on device")

        full.setattr("rtdetr_slurm.submission.ends.close_status", refuse)
        _, notes = survey_run(run.path)
        assert "not all of that could be recorded" in notes[0]
    assert not (run.path / "summary.json").exists(), "with which nobody would look again"
    slurm.answer("squeue", "true")  # forgotten by now
    assert survey_run(run.path)[1] == (), "whoever recorded the end may be closing it"
    monkeypatch.setattr("rtdetr_slurm.submission.ends._CLOSED_WITHIN", timedelta(0))
    assert survey_run(run.path)[1] == (
        f"{run.id}: train ended without a word, which is recorded now",
    )
    assert read_status(log.path)[-1]["status"] == "FAILURE"
    assert len(finished(run)) == 1
    assert (run.path / "summary.json").exists()
    assert survey_run(run.path)[1] == ()
