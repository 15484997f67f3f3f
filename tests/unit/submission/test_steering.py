"""Extending, stopping and going on with a search: what its workers are told, and what is sent."""

from __future__ import annotations

from dataclasses import replace
from datetime import datetime, timedelta, timezone
from pathlib import Path

import pytest
from launch_support import STAGE, make_run
from search_support import searching_stages
from slurm_support import FakeSlurm, queue_line
from study_support import waiting

from rtdetr_slurm.automl.budget import budget_of, search_events, why_stopped
from rtdetr_slurm.automl.study import Study, create_study, open_study
from rtdetr_slurm.errors import RequestError, SiteError
from rtdetr_slurm.plan.search import Search
from rtdetr_slurm.runs.run import Run
from rtdetr_slurm.runs.state import READER
from rtdetr_slurm.submission.steering import Extension, extend_search, resume_search, stop_search
from rtdetr_slurm.submission.submit import submit_run

SENT_AGAIN = {"train": "52", "best": "53", "evaluate_best": "54"}


def search_of(run: Run) -> Search:
    search = run.plan.stages[0].search
    assert search is not None
    return search


def study_of(run: Run) -> Study:
    return open_study(search_of(run))


@pytest.fixture
def run(tmp_path: Path, slurm: FakeSlurm) -> Run:
    """A search by two workers, job 42, with what follows as 43 and 44; later ones are 52 to 54."""
    stages = searching_stages(tmp_path / "runs", gpu_hours=1.0)
    of_slurm = [replace(one, launch=STAGE.launch, resources=STAGE.resources) for one in stages]
    run = make_run(tmp_path / "runs", *of_slurm)
    create_study(search_of(run))
    answer = "case $* in *evaluate_best*) echo {0}4;; *best*) echo {0}3;; *) echo {0}2;; esac"
    slurm.answer("sbatch", answer.format(4))
    submit_run(run)
    slurm.answer("sbatch", answer.format(5))
    return run


def end(run: Run, stage: str, job: str, task: int | None = None, state: str = "success") -> None:
    facts = {
        "stage": stage,
        "job_id": job,
        "restart": 0,
        **({} if task is None else {"task": task}),
    }
    how = {} if state == "success" else {"failure_class": "infra"}
    run.record("started", **facts)
    run.record("finished", **facts, state=state, reason="", **how)


def train_all(study: Study) -> None:
    while (trial := study.take()) is not None:
        study.report(trial.number, 0, {"val_mAP": 0.1 * trial.number})
        study.complete(trial.number, {})


def end_all(run: Run) -> None:
    """The search and its chain have come to their end; one of the workers was not needed."""
    train_all(study_of(run))
    end(run, "train", "42_0", 0)
    dismissed = {"state": "success", "reason": "it was not needed", "recorded_by": READER}
    run.record("finished", stage="train", task=1, job_id="42_1", restart=0, **dismissed)
    end(run, "best", "43")
    end(run, "evaluate_best", "44")


def test_a_search_that_has_ended_goes_on_when_it_is_extended(
    run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("rtdetr_slurm.submission.ends._CLOSED_WITHIN", timedelta(0))
    end_all(run)
    notes: list[str] = []
    assert resume_search(run, notes.append) == {}
    assert notes == ["no trial begins: no trial is left"]
    assert extend_search(run, Extension(trials=2, gpu_hours=3)) == (2, SENT_AGAIN)
    assert waiting(study_of(run)) == 2
    budget = budget_of(search_of(run), run.events())
    assert (budget.trials, budget.gpu_hours) == (5, 4)
    scripts = [(run.job_dir(name) / "job.sh").read_text() for name in ("best", "evaluate_best")]
    assert "--dependency=afterany:52\n" in scripts[0]
    assert "--dependency=afterok:53\n" in scripts[1]


def test_workers_that_have_ended_are_sent_again_beside_those_at_work(
    run: Run, slurm: FakeSlurm
) -> None:
    end(run, "train", "42_0", 0)
    waiting = [
        queue_line(run, *job)
        for job in (("43", "PENDING", "best"), ("44", "PENDING", "evaluate_best"))
    ]
    lines = [queue_line(run, "42_1", "RUNNING"), *waiting]
    slurm.answer("squeue", "\n".join(f"echo '{line}'" for line in lines))
    assert extend_search(run, Extension(trials=1)) == (1, SENT_AGAIN)
    assert sorted(slurm.calls("scancel")[0].split()) == ["43", "44"]
    assert "#SBATCH --array=0%1\n" in (run.job_dir("train") / "job.sh").read_text()
    assert "--dependency=afterany:42:52\n" in (run.job_dir("best") / "job.sh").read_text()


def test_nothing_is_added_while_the_best_is_being_found(run: Run, slurm: FakeSlurm) -> None:
    train_all(study_of(run))
    for worker in (0, 1):
        end(run, "train", f"42_{worker}", worker)
    slurm.answer("squeue", f"echo '{queue_line(run, '43', 'RUNNING', 'best')}'")
    with pytest.raises(RequestError, match="best is at work on what there is so far"):
        extend_search(run, Extension(trials=2))
    assert waiting(study_of(run)) == 0


def test_a_search_that_was_stopped_goes_on(run: Run) -> None:
    assert stop_search(run, "stopped on request") is None
    assert stop_search(run, "once more") == "stopped on request"
    for worker in (0, 1):
        end(run, "train", f"42_{worker}", worker)
    end(run, "best", "43", state="failed")
    notes: list[str] = []
    assert resume_search(run, notes.append) == SENT_AGAIN
    assert notes == ["goes on, though stopped on request"]
    assert why_stopped(search_events(run.events(), run.plan.stages[0])) is None


def test_what_cannot_be_added(run: Run, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    past = datetime.now(timezone.utc) - timedelta(hours=1)
    for more, message in (
        (Extension(), "nothing to add"),
        (Extension(trials=-1), "more than nothing"),
        (Extension(deadline=past), "has passed"),
    ):
        with pytest.raises(RequestError, match=message):
            extend_search(run, more)
    limits = tmp_path / "limits.yaml"
    limits.write_text("limits: {max_trials: 4}\n")
    monkeypatch.setattr("rtdetr_slurm.site.discover.ADMIN_PROFILE", limits)
    with pytest.raises(SiteError, match=r"would have 5 trials; at most 4 \(\S+limits\.yaml:1\)"):
        extend_search(run, Extension(trials=2))
    with pytest.raises(RequestError, match="has searched nothing"):
        stop_search(make_run(tmp_path / "plain", STAGE), "")
