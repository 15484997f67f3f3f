"""A run's report from its record: what only the record of several writers can get wrong."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import pytest
from launch_support import EVALUATE, STAGE, claim_results, make_run

from rtdetr_slurm.contract import Status
from rtdetr_slurm.plan.model import StageTask
from rtdetr_slurm.runs import report
from rtdetr_slurm.runs.claim import Start, claim_id
from rtdetr_slurm.runs.report import keep_summary, report_run
from rtdetr_slurm.runs.run import Run, status_path
from rtdetr_slurm.runs.secrets import keep_secrets, secrets_of
from rtdetr_slurm.runs.state import StageState
from rtdetr_slurm.runs.status import StatusLog
from rtdetr_slurm.runs.tao import UNSIGNED
from rtdetr_slurm.slurm.answers import JobInfo

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
    assert not (run.path / "secrets.json").exists()
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
