"""Cancelling what is there, and nothing else; stand-ins for Slurm's programs answer."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pytest
from launch_support import STAGE, make_run
from slurm_support import FakeSlurm, queue_line, submitted

from rtdetr_slurm.cli.main import main
from rtdetr_slurm.errors import SiteError
from rtdetr_slurm.plan.model import Array, Dependency, Origin
from rtdetr_slurm.runs.run import Run
from rtdetr_slurm.runs.state import Signs, StageState, is_to_end, judge
from rtdetr_slurm.slurm import commands
from rtdetr_slurm.slurm.commands import SlurmUnreachable
from rtdetr_slurm.submission.cancel import Cancelled, cancel_run
from rtdetr_slurm.submission.sending import token
from rtdetr_slurm.submission.survey import survey_run


def names(run: Run) -> Sequence[str]:
    return [event["event"] for event in run.events()]


def test_cancel_records_the_wish_first(slurm: FakeSlurm, run: Run) -> None:
    submitted(run)
    slurm.answer("squeue", f"echo '{queue_line(run, '42', 'RUNNING')}'")
    slurm.answer("scancel", f"cat {run.path}/events/* > {slurm.folder}/then")
    assert cancel_run(run).jobs == {"train": "42"}
    assert '"cancelling"' in (slurm.folder / "then").read_text()
    assert slurm.calls("scancel") == ["42"]


def test_what_is_cancelled_in_the_queue_has_ended(slurm: FakeSlurm, run: Run) -> None:
    submitted(run)
    slurm.answer("squeue", f"echo '{queue_line(run, '42')}'")
    assert cancel_run(run).jobs == {"train": "42"}
    asked = len(slurm.calls("squeue"))
    assert survey_run(run.path)[0].state is StageState.CANCELLED
    assert (run.path / "summary.json").exists()
    assert len(slurm.calls("squeue")) == asked, "there is nothing left to ask"


def test_cancel_of_an_ended_run_does_nothing(slurm: FakeSlurm, run: Run) -> None:
    submitted(run)
    slurm.answer("squeue", f"echo '{queue_line(run, '42', 'FAILED')}'")
    assert cancel_run(run).jobs == {}
    assert slurm.calls("scancel") == []


@pytest.mark.parametrize("comment", ["rtdetr-slurm:train-20250101-000000-0000:train", "", "x"])
def test_somebody_elses_job_under_the_same_number_is_left_alone(
    slurm: FakeSlurm, run: Run, comment: str
) -> None:
    submitted(run)
    slurm.answer("squeue", f"echo '42|RUNNING|None|N/A|n|{comment}|'")
    assert cancel_run(run) == Cancelled({}, ["train"], [])
    assert slurm.calls("scancel") == []


def test_a_job_whose_number_was_never_recorded_is_found_by_its_token(
    slurm: FakeSlurm, run: Run
) -> None:
    run.record("submitting", stage="train", token=token(run.id, "train"))
    slurm.answer("squeue", f"echo '{queue_line(run, '77')}'")
    assert cancel_run(run).jobs == {"train": "77"}
    assert slurm.calls("scancel") == ["77"]


def test_what_is_not_known_is_said_to_be_unknown(
    slurm: FakeSlurm, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """sbatch may still be at work; what it queues will obey."""
    follow_up = replace(STAGE, name="evaluate", depends_on=(Dependency(Origin("train")),))
    run = make_run(tmp_path / "runs", STAGE, follow_up)
    run.record("submitting", stage="train", token=token(run.id, "train"))
    assert main(["cancel", str(run.path)]) == 3
    assert slurm.calls("scancel") == []
    err = capsys.readouterr().err
    assert "whether train was queued is not known" in err
    assert "evaluate, which has no job" in err
    run.record("started", stage="train", job_id="77", restart=0)
    assert is_to_end(run.events())


def test_a_slurm_that_does_not_answer_leaves_the_wish(slurm: FakeSlurm, run: Run) -> None:
    submitted(run)
    slurm.answer("squeue", "echo 'Unable to contact slurm controller' >&2; exit 1")
    with pytest.raises(SlurmUnreachable, match="Nothing was ended; the wish to cancel is on rec"):
        cancel_run(run)
    assert is_to_end(run.events())


def test_a_cancel_that_slurm_refused_does_not_end_the_run(slurm: FakeSlurm, run: Run) -> None:
    submitted(run)
    run.record("started", stage="train", job_id="42", restart=0)
    slurm.answer("squeue", f"echo '{queue_line(run, '42', 'RUNNING')}'")
    slurm.answer("scancel", "echo 'scancel: error: Access/permission denied' >&2; exit 1")
    with pytest.raises(SiteError, match="permission denied"):
        cancel_run(run)
    assert names(run)[-2:] == ["cancelling", "not_cancelled"]
    assert not is_to_end(run.events()), "the next preemption warning must not end it"


def test_a_cancel_that_may_have_reached_slurm_is_one(
    slurm: FakeSlurm, run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    submitted(run)
    slurm.answer("squeue", f"echo '{queue_line(run, '42', 'RUNNING')}'")
    slurm.answer("scancel", "sleep 9")
    monkeypatch.setattr(commands, "TIMEOUT_S", 0.3)
    with pytest.raises(SlurmUnreachable, match="scancel gave no answer in 0 s"):
        cancel_run(run)
    assert is_to_end(run.events())


def test_a_job_that_ended_meanwhile_is_no_error(slurm: FakeSlurm, run: Run) -> None:
    submitted(run)
    slurm.answer("squeue", f"echo '{queue_line(run, '42', 'RUNNING')}'")
    slurm.answer("scancel", "echo 'Kill job error on job id 42: Invalid job id' >&2; exit 1")
    assert cancel_run(run).jobs == {"train": "42"}


def test_a_job_that_ended_meanwhile_hides_no_refusal(slurm: FakeSlurm, tmp_path: Path) -> None:
    run = make_run(tmp_path / "runs", replace(STAGE, array=Array(2)))
    submitted(run)
    lines = [queue_line(run, f"42_{task}", "RUNNING") for task in range(2)]
    slurm.answer("squeue", f"echo '{lines[0]}'; echo '{lines[1]}'")
    kill = "scancel: error: Kill job error on job id"
    slurm.answer(
        "scancel",
        f"echo '{kill} 42_0: Job/step already completing or completed' >&2; "
        f"echo '{kill} 42_1: Socket timed out on send/recv operation' >&2; exit 1",
    )
    with pytest.raises(SiteError, match="Socket timed out"):
        cancel_run(run)


def test_a_cancelled_job_that_slurm_has_purged_has_ended(slurm: FakeSlurm, run: Run) -> None:
    """Without accounting nobody else will ever say so."""
    submitted(run)
    run.record("started", stage="train", job_id="42", restart=0)
    assert survey_run(run.path)[0].state is StageState.UNKNOWN
    run.record("cancelling", stage="train", job_id="42")
    assert survey_run(run.path)[0].state is StageState.CANCELLED
    slurm.answer("squeue", "exit 1")
    assert survey_run(run.path)[0].state is StageState.UNKNOWN, "nobody was asked"


def test_a_wish_that_has_been_fulfilled_is_none_any_more(run: Run) -> None:
    """Whoever requeues a cancelled job means it."""
    submitted(run)
    run.record("cancelling", stage="train", job_id="42")
    run.record("finished", stage="train", job_id="42", state="cancelled", failure_class="cancelled")
    assert not is_to_end(run.events())
    assert judge(run.events(), None, Signs()).state is StageState.CANCELLED
