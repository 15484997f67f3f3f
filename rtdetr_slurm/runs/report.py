"""Reporting on a run, from its record and from what the scheduler says. Standard library only."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from datetime import datetime, timedelta, timezone
from functools import partial
from pathlib import Path

from rtdetr_slurm.actions import get_action
from rtdetr_slurm.contract import SUMMARY_JSON, ExitCode
from rtdetr_slurm.errors import RequestError
from rtdetr_slurm.files import write_atomic
from rtdetr_slurm.plan.model import Origin, Plan, StageTask
from rtdetr_slurm.runs.alive import last_alive
from rtdetr_slurm.runs.artefacts import Results, artefact_problem, results_of
from rtdetr_slurm.runs.claim import claim_id
from rtdetr_slurm.runs.events import Event
from rtdetr_slurm.runs.live import read_live
from rtdetr_slurm.runs.logs import tail
from rtdetr_slurm.runs.progress import progress_of
from rtdetr_slurm.runs.run import Run, open_run, status_path
from rtdetr_slurm.runs.secrets import forget_secrets
from rtdetr_slurm.runs.state import (
    Judgement,
    Signs,
    StageState,
    first_start,
    is_taken_back,
    job_id_of,
    judge,
    recorded_end,
    restart_of,
    task_events,
    task_history,
    times_sent,
)
from rtdetr_slurm.runs.status import StatusLine, status_lines_of
from rtdetr_slurm.runs.summary import RunReport, StageReport, read_summary
from rtdetr_slurm.runs.trials import folder_of, trial_at_work
from rtdetr_slurm.runs.usage import usage_of
from rtdetr_slurm.slurm.answers import JobInfo
from rtdetr_slurm.slurm.states import NEVER_SATISFIED
from rtdetr_slurm.slurm.times import parse_moment

_TALKS_S = 60.0
"""Rank 0 says every few seconds what it does; whoever was heard within this time lives."""
_LATE = timedelta(seconds=60)
"""NFS may show what another node has written so much later."""
_OWN_EXIT_CODES = (ExitCode.OK, ExitCode.FAILED, ExitCode.BAD_REQUEST, ExitCode.SITE_CANNOT)
"""With which a stage run ends once it has written down how."""


def report_run(
    run: Run,
    jobs: Mapping[str, JobInfo],
    events: list[Event],
    waiting: frozenset[Path] = frozenset(),
) -> RunReport:
    """Report on a run from its record and from what the scheduler says of its jobs.

    Args:
        jobs: task name to job; empty where the record alone is to speak.
        events: of the run.
        waiting: the runs that wait for this one, and are reported on because of that.
    """
    reports: dict[str, StageReport] = {}
    for task in run.plan.tasks():
        job = jobs.get(task.name)
        unmet = partial(_why_skipped, run, task, job, reports, waiting | {run.path})
        reports[task.name] = _report_task(run, task, events, job, unmet)
    for name in _done_without(run.plan, reports):
        reports[name] = replace(reports[name], done_without=True)
    manifest = run.manifest
    return RunReport(
        run_id=run.id,
        run_dir=str(run.path),
        name=manifest.name,
        action=manifest.action,
        created=manifest.created,
        user=manifest.user,
        stages=tuple(reports.values()),
    )


def _done_without(plan: Plan, reports: Mapping[str, StageReport]) -> Iterator[str]:
    """Workers that have not ended well, of searches that have found their best trial: others have
    gone on with what they had begun."""
    for stage in plan.stages:
        if stage.best_of is not None and reports[stage.name].state is StageState.SUCCESS:
            for task in plan.stage(stage.best_of).tasks():
                if reports[task.name].state in (StageState.FAILED, StageState.CANCELLED):
                    yield task.name


def keep_summary(run: Run) -> None:
    """Write summary.json once all stages of a run have ended by its record alone; remove its
    secrets then, or once no job of it is to do anything any more.

    Called by whoever has just recorded an end. Two that do so at once write the same. `resume` may
    send something at the same moment: it says so before it looks for either file, and here that is
    looked for after each was changed, so that one of the two sees the other.

    Raises:
        OSError: one of the two cannot be done.
    """
    events = run.events()
    report = report_run(run, {}, events)
    tasks = zip(run.plan.tasks(), report.stages, strict=True)

    def sent_again() -> bool:
        return times_sent(run.events()) > times_sent(events)

    if all(s.state.ended or is_taken_back(task_events(events, task)) for task, s in tasks):
        forget_secrets(run.path, sent_again)
    if report.ended:
        summary = run.path / SUMMARY_JSON
        write_atomic(summary, json.dumps(report.to_json(), indent=2) + "\n")
        if sent_again():
            summary.unlink(missing_ok=True)


def no_jobs(_run: Run, _events: list[Event]) -> Mapping[str, JobInfo]:
    """For a report from the record alone."""
    return {}


def stage_reports(
    run_dir: Path,
    stage: str,
    jobs: Callable[[Run, list[Event]], Mapping[str, JobInfo]] = no_jobs,
    waiting: frozenset[Path] = frozenset(),
) -> list[StageReport]:
    """The reports on one stage of a run, task by task.

    Args:
        jobs: what the scheduler says, by task name.
        waiting: as of report_run.

    Raises:
        RequestError: the run cannot be read, or it waits for one that waits for it.
    """
    run = open_run(run_dir)
    if run.path in waiting:
        raise RequestError(f"{run.path} waits for a run that waits for it")
    report = read_summary(run_dir)
    if report is None:
        events = run.events()
        report = report_run(run, jobs(run, events), events, waiting)
    names = {task.name for task in run.plan.stage(stage).tasks()}
    return [one for one in report.stages if one.name in names]


def _report_task(
    run: Run,
    task: StageTask,
    events: list[Event],
    job: JobInfo | None,
    unmet: Callable[[], str | None],
) -> StageReport:
    """Report on a task.

    Args:
        events: of the run.
        unmet: why it can never start; None where it can.
    """
    history, own = task_history(events, task), task_events(events, task)
    job_id = (job.job_id if job is not None else "") or job_id_of(own, task)
    claim = claim_id(run.id, task.name)
    lines = status_lines_of(status_path(task), claim)
    log = run.log_path(task.stage.name, job_id) if job_id else None
    started = [restart_of(event) for event in own if event["event"] == "started"]
    latest = max([first_start(own), *started])
    # A line of an earlier start says nothing of this one.
    last = lines[-1] if lines and lines[-1].get("restart", 0) >= latest else None
    has_started = any(_is_start(event) for event in history)
    live = read_live(task.results_dir, claim) if has_started else None
    alive = last_alive(run, task) if has_started else None
    signs = Signs(
        status_line=last,
        log_tail=tail(log) if log else [],
        talks=live is not None and live.start.restart >= latest and abs(live.age_s) < _TALKS_S,
        just_ended=bool(started) and job is not None and _has_just_ended(job),
        proof_problem=lambda: _proof_problem(run, task, lines),
    )
    found = judge(own, job, signs)
    if _may_be_skipped(found, own) and (reason := unmet()) is not None:
        found = Judgement(StageState.SKIPPED, reason)
    end = recorded_end(own) if found.state.ended else None
    begun = end is not None or has_started
    waits = found.state is StageState.QUEUED
    forgotten = job is not None and job.gone
    now = None if found.state.ended or forgotten else datetime.now(timezone.utc)
    running, told = found.state is StageState.RUNNING, live
    if running and task.stage.search is not None:
        trial = trial_at_work(events, task)
        told = None
        if trial is not None:
            told = read_live(trial.results_dir, claim_id(run.id, trial.name))
            found = replace(found, detail=found.detail or f"trial {trial.trial}")
    return StageReport(
        name=task.name,
        action=task.stage.action,
        state=found.state,
        detail=found.detail,
        failure=found.failure,
        job_id=job_id,
        job=job,
        restarts=max(map(restart_of, own), default=0),
        progress=progress_of(lines),
        results=results_of(task, end, end and folder_of(run.plan, end)) if begun else Results(),
        results_dir=str(task.results_dir),
        log=None if log is None else str(log),
        live=told if running else None,
        usage=usage_of(task, history, live, now, alive=alive, on_nodes=not waits),
    )


def _proof_problem(run: Run, task: StageTask, lines: Sequence[StatusLine]) -> str | None:
    """What is wrong with what proves a task's success, whose last line says that it is one."""
    engine = task.stage.launch.engine
    if engine == "tao":
        # Its launch writes a line of ours once it has looked at all that TAO leaves, and at how.
        said = "its launch did not confirm that, and TAO's own word is no proof"
        return None if "schema_version" in lines[-1] else said
    kpis = {name for line in lines for name in line.get("kpi", {})}
    action = get_action(task.stage.action)
    return artefact_problem(action, task.results_dir, run.spec, engine=engine, kpis=kpis)


def _is_start(event: Event) -> bool:
    return event["event"] == "started"


def _has_just_ended(job: JobInfo) -> bool:
    """Whether a job has ended by itself, which then writes down its end, within the last minute."""
    if job.signal or job.exit_code not in _OWN_EXIT_CODES:
        return False
    ended = parse_moment(job.ended)
    return ended is not None and timedelta(0) <= datetime.now(timezone.utc) - ended < _LATE


def _may_be_skipped(found: Judgement, own: list[Event]) -> bool:
    begun = {"started", "cancelling", "refused", "withdrawn"}
    return found.state is not StageState.SUCCESS and not any(e["event"] in begun for e in own)


def _why_skipped(
    run: Run,
    task: StageTask,
    job: JobInfo | None,
    before: Mapping[str, StageReport],
    waiting: frozenset[Path],
) -> str | None:
    """Why a task never starts, because of what its stage depends on; None where it may."""
    for dependency in task.stage.depends_on:
        if dependency.kind == "afterany":
            continue
        reason = _unmet(dependency.on, run, before, waiting)
        if reason is None and job is not None and job.reason == NEVER_SATISFIED:
            reason = f"{dependency.on} did not succeed"
        if reason is not None:
            return reason
    return None


def _unmet(
    origin: Origin, run: Run, before: Mapping[str, StageReport], waiting: frozenset[Path]
) -> str | None:
    """Why a stage's success can no longer be waited for; None while it may come, or has come."""
    if origin.run is None:
        parents = [before[task.name] for task in run.plan.stage(origin.stage).tasks()]
    else:
        try:
            parents = stage_reports(Path(origin.run), origin.stage, no_jobs, waiting)
        except RequestError as error:
            return f"{origin} cannot be read: {error}"
    for parent in parents:
        if parent.state.ended and parent.state is not StageState.SUCCESS:
            run_of = "" if origin.run is None else f" of {Path(origin.run).name}"
            return f"{parent.name}{run_of} {_did_not_succeed(parent)}"
    return None


def _did_not_succeed(parent: StageReport) -> str:
    reason = parent.failure.evidence if parent.failure else parent.detail
    return f"{parent.state.value}: {reason}" if reason else parent.state.value
