"""A run's report from its record: what only the record of several writers can get wrong."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import pytest
from launch_support import EVALUATE, STAGE, claim_results, make_run
from search_support import searching_run

from rtdetr_slurm.contract import Status
from rtdetr_slurm.plan.model import StageTask
from rtdetr_slurm.runs import report
from rtdetr_slurm.runs.claim import Start, claim_id
from rtdetr_slurm.runs.report import keep_summary, report_run
from rtdetr_slurm.runs.run import Run, status_path
from rtdetr_slurm.runs.secrets import keep_secrets, secrets_file, secrets_of
from rtdetr_slurm.runs.state import StageState
from rtdetr_slurm.runs.status import StatusLog
from rtdetr_slurm.runs.summary import read_summary
from rtdetr_slurm.runs.tao import UNSIGNED
from rtdetr_slurm.slurm.answers import JobInfo
from rtdetr_slurm.submission.resume import find_missing

SECRETS = replace(STAGE, launch=replace(STAGE.launch, secrets=("KEY",)))
FORGOTTEN = {"train": JobInfo("42", "GONE", source="nobody")}


def ended(run: Run) -> None:
    run.record("submitting", stage="train")
    run.record("submitted", stage="train", job_id="42")
    run.record("finished", stage="train", job_id="42", state="failed", failure_class="infra")


@pytest.mark.parametrize("meanwhile", ["announced", "written"])
def test_a_resume_at_the_same_moment_loses_neither_secrets_nor_its_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, meanwhile: str
) -> None:
    """It comes after the record was read and before anything is removed or written."""
    run = make_run(tmp_path, SECRETS)
    [stage] = run.plan.stages
    keep_secrets(run.path, stage, {"KEY": "x"})
    ended(run)

    def resumed(found: Callable[..., Any]) -> Callable[..., Any]:
        def reported(*args: Any) -> Any:
            what = found(*args)
            run.record("submitting", stage="train", restart=1)
            if meanwhile == "written":
                keep_secrets(run.path, stage, {"KEY": "x"})
            return what

        return reported

    with monkeypatch.context() as patched:
        patched.setattr(report, "report_run", resumed(report_run))
        keep_summary(run)
    assert secrets_of(run.path, stage) == {"KEY": "x"}
    assert not (run.path / "summary.json").exists(), "it has not ended"
    assert [*run.path.glob(".*")] == []
    run.record("finished", stage="train", job_id="43", restart=1, state="success")
    keep_summary(run)
    assert not secrets_file(run.path).exists()
    assert (run.path / "summary.json").exists()


def test_taos_own_success_proves_nothing_once_slurm_has_forgotten_the_job(tmp_path: Path) -> None:
    stage = replace(STAGE, action="evaluate", launch=replace(STAGE.launch, engine="tao"))
    run = make_run(tmp_path, stage)
    task = StageTask(run.plan.stages[0])
    claim_results(run, task, restart=0)
    for event in ("submitting", "submitted", "started"):
        run.record(event, stage="train", job_id="42")
    log = StatusLog(status_path(task), Start(claim_id(run.id, "train"), 0))
    log.write(Status.STARTED, "the launch", **{UNSIGNED: True})
    with log.path.open("a") as stream:
        stream.write('{"status": "SUCCESS", "message": "done", "kpi": {"test_mAP": 0.5}}\n')
    (task.results_dir / "results.json").write_text("{}")
    [one] = report_run(run, FORGOTTEN, run.events()).stages
    assert one.state is StageState.FAILED
    assert one.failure is not None
    assert one.failure.evidence.endswith("TAO's own word is no proof")
    log.write(Status.SUCCESS, "train has succeeded")
    [one] = report_run(run, FORGOTTEN, run.events()).stages
    assert one.state is StageState.SUCCESS


@pytest.mark.parametrize("how", ["skipped", "forgotten"])
def test_what_waits_for_nothing_any_more_has_no_time_in_the_queue(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, how: str
) -> None:
    run = make_run(tmp_path, STAGE, EVALUATE)
    run.record("submitted", stage="evaluate", job_id="43")
    job = {"evaluate": JobInfo("43", "GONE" if how == "forgotten" else "PENDING")}
    if how == "skipped":
        ended(run)

    class Later(datetime):
        @classmethod
        def now(cls, tz: Any = None) -> datetime:
            return datetime(2100, 1, 1, tzinfo=timezone.utc)

    monkeypatch.setattr(report, "datetime", Later)
    [_, evaluate] = report_run(run, job, run.events()).stages
    assert evaluate.state is (StageState.SKIPPED if how == "skipped" else StageState.UNKNOWN)
    assert evaluate.usage.queued_s < 60


@pytest.mark.parametrize(("best", "expected"), [("success", "success"), ("failed", "failed")])
def test_a_worker_that_was_lost_does_not_matter_once_the_best_trial_is_found(
    tmp_path: Path, best: str, expected: str
) -> None:
    """Others have gone on with its trial; its own end is still told."""
    run = searching_run(tmp_path)
    run.record("submitting", stage="train")
    run.record("submitted", stage="train", job_id="42")
    for name, facts, state in (
        ("train", {"task": 0, "job_id": "42_0"}, "success"),
        ("train", {"task": 1, "job_id": "42_1"}, "failed"),
        ("best", {"job_id": "43"}, best),
        ("evaluate_best", {"job_id": "44"}, best),
    ):
        run.record("finished", stage=name, **facts, state=state, failure_class="infra", reason="x")
    events = run.events()
    found = report_run(run, {}, events)
    reports = {one.name: one for one in found.stages}
    assert reports["train.1"].state is StageState.FAILED
    assert reports["train.1"].done_without is (best == "success")
    assert found.state.value == expected
    keep_summary(run)
    kept = read_summary(run.path)
    assert kept is not None
    assert kept.state is found.state
    sent = find_missing(run, found, events).sendings
    assert [(one.stage.name, one.tasks) for one in sent] == (
        [] if best == "success" else [("train", (1,)), ("best", None), ("evaluate_best", None)]
    )
