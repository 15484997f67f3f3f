"""The state of many runs with one question to Slurm."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from rtdetr_slurm.errors import SiteError
from rtdetr_slurm.plan.model import Stage
from rtdetr_slurm.runs.logs import status_lines_of, tail
from rtdetr_slurm.runs.results import Progress, progress_of
from rtdetr_slurm.runs.run import Run, status_path
from rtdetr_slurm.runs.state import (
    JobInfo,
    StageReport,
    StageState,
    finished_event,
    job_id_of,
    reconcile,
    stage_events,
)
from rtdetr_slurm.slurm.client import SlurmClient
from rtdetr_slurm.slurm.local import local_job


@dataclass(frozen=True)
class StageSurvey:
    """One stage: the verdict on it, what Slurm says, and how far it is."""

    stage: Stage
    report: StageReport
    job: JobInfo | None
    progress: Progress


@dataclass(frozen=True)
class RunSurvey:
    """One run with all its stages."""

    run: Run
    stages: tuple[StageSurvey, ...]

    @property
    def state(self) -> StageState:
        """The run's state: the most pressing one of its stages."""
        states = [survey.report.state for survey in self.stages]
        order = (
            StageState.FAILED,
            StageState.CANCELLED,
            StageState.RUNNING,
            StageState.UNKNOWN,
            StageState.QUEUED,
        )
        return next((state for state in order if state in states), StageState.SUCCESS)


def survey(runs: Sequence[Run]) -> tuple[list[RunSurvey], list[str]]:
    """All runs, with one squeue for those that have not ended, and what could not be asked.

    A Slurm that does not answer is no failure of a run: such runs are judged by their own record.
    """
    events = {run.id: run.events() for run in runs}
    open_jobs = dict(_open_jobs(runs, events))
    notes: list[str] = []
    infos: dict[str, JobInfo] = {}
    if open_jobs:
        try:
            infos = SlurmClient().jobs(open_jobs, since=min(open_jobs.values()))
        except SiteError as error:
            notes.append(f"Slurm cannot be asked, so states are from the runs' records: {error}")
    return [_survey_run(run, events[run.id], infos) for run in runs], notes


def _open_jobs(
    runs: Sequence[Run], events: dict[str, list[dict[str, Any]]]
) -> Iterable[tuple[str, str]]:
    """Slurm job ids of stages without a recorded end, with the local time of submission."""
    for run in runs:
        for stage in run.plan.stages:
            own = stage_events(events[run.id], stage.name)
            job_id = job_id_of(own)
            if stage.launch.scheduler == "slurm" and job_id and finished_event(own) is None:
                begun = datetime.fromisoformat(own[0]["timestamp"]).astimezone()
                yield job_id, begun.strftime("%Y-%m-%dT%H:%M:%S")


def _survey_run(run: Run, events: list[dict[str, Any]], infos: dict[str, JobInfo]) -> RunSurvey:
    surveys = []
    for stage in run.plan.stages:
        own = stage_events(events, stage.name)
        job_id = job_id_of(own)
        job = infos.get(job_id) if job_id else None
        if stage.launch.scheduler == "local" and job_id:
            submitted = [e for e in own if e["event"] == "submitted"]
            job = local_job(submitted[-1]) if submitted else None
        lines = status_lines_of(status_path(stage), own)
        log = tail(run.log_path(job_id)) if job_id else []
        report = reconcile(own, job, lines[-1] if lines else None, log)
        surveys.append(StageSurvey(stage, report, job, progress_of(lines)))
    return RunSurvey(run, tuple(surveys))


def survey_json(survey: RunSurvey) -> dict[str, Any]:
    """A run's survey as `--json` prints it."""
    run = survey.run
    return {
        "run_id": run.id,
        "run_dir": str(run.path),
        "name": run.manifest["name"],
        "action": run.manifest["action"],
        "created": run.manifest["created"],
        "state": survey.state.value,
        "stages": [_stage_json(run, stage) for stage in survey.stages],
    }


def _stage_json(run: Run, survey: StageSurvey) -> dict[str, Any]:
    report, job, progress = survey.report, survey.job, survey.progress
    failure = report.failure
    return {
        "name": survey.stage.name,
        "state": report.state.value,
        "detail": report.detail,
        "job_id": report.job_id,
        "slurm_state": job.state if job and job.source != "local" else None,
        "slurm_reason": job.reason if job else None,
        "expected_start": job.expected_start if job else None,
        "nodes": job.nodes if job else None,
        "restarts": report.restarts,
        "epoch": progress.epoch,
        "max_epoch": progress.max_epoch,
        "eta": progress.eta,
        "metrics": dict(progress.metrics),
        "failure": failure
        and {
            "class": failure.failure_class.value,
            "evidence": failure.evidence,
            "advice": failure.advice,
        },
        "results_dir": survey.stage.results_dir,
        "log": str(run.log_path(report.job_id)) if report.job_id else None,
    }
