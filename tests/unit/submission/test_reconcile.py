"""A submission that failed, or whose outcome is unclear: nothing is sent twice, nothing is left.

As in test_submit, small programs on PATH stand in for Slurm's.
"""

from __future__ import annotations

import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from launch_support import EVALUATE, STAGE, make_run
from slurm_support import FakeSlurm, queue_line, survey

from rtdetr_slurm.cli import main as main_module
from rtdetr_slurm.runs.run import Run
from rtdetr_slurm.runs.state import StageState, is_to_end, task_events
from rtdetr_slurm.slurm import commands
from rtdetr_slurm.slurm.answers import Queued
from rtdetr_slurm.slurm.commands import SlurmUnreachable, SubmissionRefused
from rtdetr_slurm.slurm.executor import BatchExecutor
from rtdetr_slurm.submission.submit import submit_run

Capture = pytest.CaptureFixture[str]


def names(run: Run) -> list[str]:
    return [event["event"] for event in run.events()]


@pytest.mark.parametrize(
    "body",
    [
        "echo 'sbatch: error: Batch job submission failed: Socket timed out' >&2; exit 1",
        "echo 'sbatch: error: Unable to contact slurm controller' >&2; exit 1",
        "echo 'Submitted, perhaps'",
        "true",
        "kill -9 $$",
        "echo 'sbatch: error: the wrapper was ended' >&2; exit 143",
    ],
)
def test_a_job_queued_behind_an_unclear_answer_is_adopted(
    slurm: FakeSlurm, run: Run, body: str
) -> None:
    slurm.answer("sbatch", body)
    slurm.answer("squeue", f"echo '{queue_line(run, '77')}'")
    assert submit_run(run) == {"train": "77"}
    assert len(slurm.calls("sbatch")) == 1
    assert names(run) == ["submitting", "submitted"]


def test_a_job_that_shows_up_late_is_adopted(slurm: FakeSlurm, run: Run) -> None:
    slurm.answer("sbatch", "echo garbage")
    line = queue_line(run, "77")
    slurm.answer("squeue", f"[ $(wc -l < {slurm.folder}/squeue.calls) -lt 3 ] || echo '{line}'")
    assert submit_run(run) == {"train": "77"}


@pytest.mark.parametrize("comment", ["", "rtdetr-slurm:train-20260102-030405-abcd:train"])
def test_a_job_that_only_accounting_knows_is_adopted(
    slurm: FakeSlurm, run: Run, comment: str
) -> None:
    """By its folder where accounting keeps no comments."""
    slurm.answer("sbatch", "echo garbage")
    slurm.answer("sacct", f"echo '77|COMPLETED|0:0|None|n||{comment}|{run.path}'")
    assert submit_run(run) == {"train": "77"}


def test_an_sbatch_that_takes_too_long_is_given_up_with_all_that_it_started(
    slurm: FakeSlurm, run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Many sites have sbatch in a wrapper: whoever is still at work could queue the job later."""
    monkeypatch.setattr(commands, "SBATCH_TIMEOUT_S", 0.3)
    slurm.answer("sbatch", f"(sleep 1; touch {slurm.folder}/late) & wait")
    slurm.answer("squeue", f"echo '{queue_line(run, '77')}'")
    assert submit_run(run) == {"train": "77"}
    assert names(run) == ["submitting", "submitted"]
    time.sleep(1)
    assert not (slurm.folder / "late").exists()


@pytest.mark.parametrize("stranger", ["78|COMPLETED|0:0|None|n|||/runs/other", "78|PENDING||||||"])
def test_an_other_job_in_accounting_is_not_adopted(
    slurm: FakeSlurm, run: Run, stranger: str
) -> None:
    slurm.answer("sbatch", "echo garbage")
    slurm.answer("sacct", f"echo '{stranger}'")
    with pytest.raises(SlurmUnreachable):
        submit_run(run)


@pytest.mark.parametrize("queue", ["true", "exit 1"])
def test_an_answer_that_stays_unclear_is_never_sent_twice(
    slurm: FakeSlurm, run: Run, queue: str
) -> None:
    slurm.answer("sbatch", "echo garbage")
    slurm.answer("squeue", queue)
    with pytest.raises(SlurmUnreachable, match="not sent again"):
        submit_run(run)
    assert len(slurm.calls("sbatch")) == 1
    assert names(run) == ["submitting", "unclear"]
    found = survey(run)
    assert found.state is StageState.UNKNOWN


def test_a_job_that_turns_up_after_all_ends_when_it_starts(slurm: FakeSlurm, run: Run) -> None:
    """Whoever was told that nothing was queued may submit again."""
    slurm.answer("sbatch", "echo garbage")
    with pytest.raises(SlurmUnreachable, match="ends as soon as it starts"):
        submit_run(run)
    assert is_to_end(run.events())


def test_ctrl_c_in_sbatch_takes_the_run_back(slurm: FakeSlurm, tmp_path: Path) -> None:
    run = make_run(tmp_path / "runs", STAGE, EVALUATE)
    slurm.answer("sbatch", "case $* in *evaluate*) kill -INT $PPID; sleep 9;; *) echo 42;; esac")
    slurm.answer("squeue", f"echo '{queue_line(run, '42')}'")
    with pytest.raises(KeyboardInterrupt):
        submit_run(run)
    assert slurm.calls("scancel") == ["42"]
    assert [s.state for s in survey(run).stages] == [StageState.CANCELLED] * 2
    events = run.events()
    assert all(is_to_end(task_events(events, task)) for task in run.plan.tasks())


def test_ctrl_c_says_what_stays_queued(
    slurm: FakeSlurm, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Capture
) -> None:
    run = make_run(tmp_path / "runs", STAGE, EVALUATE)
    slurm.answer("sbatch", "case $* in *evaluate*) kill -INT $PPID; sleep 9;; *) echo 42;; esac")
    slurm.answer("squeue", f"echo '{queue_line(run, '42')}'")
    slurm.answer("scancel", "echo 'scancel: error: no' >&2; exit 1")
    monkeypatch.setattr(main_module, "_run", lambda _: len(submit_run(run)))
    assert main_module.main(["submit"]) == 130
    assert "(train: job 42) could not be cancelled" in capsys.readouterr().err


def test_whatever_ends_a_submission_takes_it_back(
    slurm: FakeSlurm, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = make_run(tmp_path / "runs", STAGE, EVALUATE)
    slurm.answer("squeue", f"echo '{queue_line(run, '42')}'")
    send = BatchExecutor.send

    def fails_later(self: BatchExecutor, *where: Any) -> Queued:
        if self.folder.name == "evaluate":
            raise MemoryError
        return send(self, *where)

    monkeypatch.setattr(BatchExecutor, "send", fails_later)
    with pytest.raises(MemoryError):
        submit_run(run)
    assert slurm.calls("scancel") == ["42"]


def test_a_refused_follow_up_takes_back_what_was_queued(slurm: FakeSlurm, tmp_path: Path) -> None:
    third = replace(EVALUATE, name="again", results_dir="/runs/r/results/again")
    run = make_run(tmp_path / "runs", STAGE, EVALUATE, third)
    refusal = "echo 'sbatch: error: invalid account' >&2; exit 1"
    slurm.answer("squeue", f"echo '{queue_line(run, '42')}'")
    slurm.answer("sbatch", f"case $* in *evaluate*) {refusal};; *) echo 42;; esac")
    with pytest.raises(SubmissionRefused, match="invalid account"):
        submit_run(run)
    assert slurm.calls("scancel") == ["42"]
    assert len(slurm.calls("sbatch")) == 2, "what comes after a refused stage is not sent"
    slurm.answer("squeue", f"echo '{queue_line(run, '42', 'CANCELLED')}'")
    states = {stage.name: stage.state for stage in survey(run).stages}
    assert states == {
        "train": StageState.CANCELLED,
        "evaluate": StageState.FAILED,
        "again": StageState.CANCELLED,
    }
    reasons = [e["reason"] for e in run.events() if e["event"] == "withdrawn"]
    assert all("stage evaluate: sbatch refused the job" in r for r in reasons)
