"""Ending a run's jobs, queued or running."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from rtdetr_slurm.errors import SiteError, explained
from rtdetr_slurm.plan.model import StageTask
from rtdetr_slurm.runs.events import Event
from rtdetr_slurm.runs.report import keep_summary, report_run
from rtdetr_slurm.runs.run import Run
from rtdetr_slurm.runs.state import NEVER_STARTED, first_start, task_events
from rtdetr_slurm.slurm.answers import JobInfo
from rtdetr_slurm.slurm.commands import SlurmUnreachable
from rtdetr_slurm.submission.backends import Backend, backend_of
from rtdetr_slurm.submission.sending import OpenTask, open_tasks


@dataclass(frozen=True)
class Cancelled:
    """What came of a wish to cancel.

    Attributes:
        jobs: task name → id of the job that was ended.
        gone: names of tasks that have no job, or none any more.
        unknown: names of tasks of which nobody can say whether they have a job.
        unwritten: what could not be written down of it, and why.
    """

    jobs: Mapping[str, str]
    gone: Sequence[str]
    unknown: Sequence[str]
    unwritten: Sequence[str] = ()


def cancel_run(run: Run) -> Cancelled:
    """Cancel what has not ended, the whole chain.

    The wish is recorded first: the stage run, which sees only a signal, knows why, and a job that
    nobody knows of yet ends as soon as it starts.

    Raises:
        SiteError: the scheduler refuses or cannot be asked, the job is a process of another
            machine, or the run is another user's.
    """
    if not run.is_own:
        # What it says may be meant to hit a job or a process of whoever obeys it.
        raise SiteError(f"{run.id} is {run.manifest.user}'s, and is not yours to cancel")
    events = run.events()
    note = _Record(run)
    backend = backend_of(run.plan)
    sent = {one.task.name: one for one in open_tasks(run, events)}
    try:
        jobs = backend.jobs(list(sent.values()))
    except SlurmUnreachable as error:
        raise _only_wished(note, _unended(run, {}, events), events, error) from error
    known = {name: job for name, job in zip(sent, jobs, strict=True) if job is not None}
    there: list[OpenTask] = []
    gone: list[str] = []
    unknown: list[str] = []
    for task in _unended(run, known, events):
        one, job = sent.get(task.name), known.get(task.name)
        if one is not None and job is not None:
            one = replace(one, job_id=job.job_id or None)
        note("cancelling", **_facts(task, events, None if one is None else one.job_id))
        if one is not None and one.job_id is None:
            unknown.append(task.name)
        elif one is None or (job is not None and job.gone):
            gone.append(task.name)
        else:
            there.append(one)
    _end(note, backend, there)
    note.do(lambda: keep_summary(run))
    jobs_ended = {one.task.name: one.job_id or "" for one in there}
    return Cancelled(jobs_ended, gone, unknown, note.unwritten)


class _Record:
    """Writes down what is done to a run. A full disk must not keep a job from being ended."""

    def __init__(self, run: Run) -> None:
        self._run = run
        self.unwritten: tuple[str, ...] = ()

    def __call__(self, event: str, **data: Any) -> None:
        self.do(lambda: self._run.record(event, **data))

    def do(self, write: Callable[[], None]) -> None:
        try:
            write()
        except OSError as error:
            self.unwritten = tuple(dict.fromkeys([*self.unwritten, str(explained(error))]))


def found_jobs(backend: Backend, tasks: Sequence[OpenTask]) -> list[OpenTask]:
    """The tasks that have a job that has not ended, each with the id it was found by.

    Raises:
        SiteError: the scheduler cannot be asked.
    """
    jobs = zip(tasks, backend.jobs(tasks), strict=True)
    return [replace(one, job_id=job.job_id) for one, job in jobs if job and not job.over]


def _facts(task: StageTask, events: Sequence[Event], job_id: str | None) -> dict[str, Any]:
    """What every event of a cancellation holds; it is about the latest submission only."""
    return {**task.event_facts(job_id), "restart": first_start(task_events(events, task))}


def _only_wished(
    note: _Record, tasks: Sequence[StageTask], events: Sequence[Event], error: SlurmUnreachable
) -> SlurmUnreachable:
    """Records the wish where Slurm cannot be asked; what there is to say about that."""
    for task in tasks:
        note("cancelling", **_facts(task, events, None))
    wish = (
        f"the wish to cancel could not be written down either: {note.unwritten[0]}"
        if note.unwritten
        else "the wish to cancel is on record, and what starts or is asked to stop obeys it"
    )
    return SlurmUnreachable(
        f"{error}. Nothing was ended; {wish}. Cancel once more when Slurm answers"
    )


def _end(note: _Record, backend: Backend, tasks: Sequence[OpenTask]) -> None:
    try:
        if tasks:
            backend.cancel(tasks)
    except SlurmUnreachable:
        raise  # it may have happened
    except SiteError as error:
        for one in tasks:
            note("not_cancelled", reason=str(error), **_facts(one.task, one.events, one.job_id))
        raise
    for one in tasks:
        # What has not started has nobody else to write down its end.
        if not any(event["event"] == "started" for event in one.events):
            note("finished", **_facts(one.task, one.events, one.job_id), **NEVER_STARTED)


def _unended(
    run: Run, known: Mapping[str, JobInfo], events: Sequence[Event]
) -> Sequence[StageTask]:
    report = report_run(run, known, [*events])
    names = {stage.name for stage in report.stages if not stage.state.ended}
    return [task for task in run.plan.tasks() if task.name in names]
