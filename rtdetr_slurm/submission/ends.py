"""Ends that a job could not write down itself, completed by the next reader of its run."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import datetime, timedelta, timezone

from rtdetr_slurm.actions import get_action
from rtdetr_slurm.contract import EVENTS_DIR, FailureClass
from rtdetr_slurm.errors import UserError
from rtdetr_slurm.plan.model import StageTask
from rtdetr_slurm.runs.artefacts import verified_checkpoints
from rtdetr_slurm.runs.claim import claim_id, latest_start, read_claim
from rtdetr_slurm.runs.efficiency import keep_efficiency
from rtdetr_slurm.runs.events import Event, record_once
from rtdetr_slurm.runs.failures import Failure
from rtdetr_slurm.runs.notices import tell_end
from rtdetr_slurm.runs.report import keep_summary
from rtdetr_slurm.runs.run import Run
from rtdetr_slurm.runs.state import (
    READER,
    StageState,
    first_start,
    is_given_up,
    recorded_end,
    task_events,
)
from rtdetr_slurm.runs.status import close_status
from rtdetr_slurm.runs.summary import RunReport, StageReport
from rtdetr_slurm.slurm.times import parse_moment

_BY_READER = {"recorded_by": READER}
_LOST_AFTER = timedelta(hours=1)
"""No controller takes so long to queue a job that it was sent."""
_CLOSED_WITHIN = timedelta(minutes=1)
"""Who has recorded an end closes the results folder next; after this time it did not get that far,
and another reader does."""


def complete_ends(run: Run, report: RunReport, events: list[Event]) -> list[str]:
    """Record the ends of jobs that were killed before they could, and give their status.json its
    last line; returns a line about each.

    Only what the scheduler says has ended, only by the run's owner, and once for several readers.

    Args:
        report: of this moment, with what the scheduler says.
    """
    if not run.is_own:
        return []
    notes: list[str] = []
    unclosed = set()
    for task, stage in zip(run.plan.tasks(), report.stages, strict=True):
        told = f"{run.id}: {task.name} ended without a word"
        end, mine = recorded_end(task_events(events, task)), None
        if end is None:
            with _noted(notes, told):
                end = mine = _record(run, task, stage)
        # What a job that was not needed any more has left is nothing to close.
        if end is None or not _is_a_readers(end) or end["state"] == StageState.SUCCESS.value:
            continue
        unclosed.add(task.name)
        if mine is None and _age(end) < _CLOSED_WITHIN:
            continue
        with _noted(notes, told):
            if _close(run, task, end) or mine is not None:
                notes.append(f"{told}, which is recorded now")
            unclosed.remove(task.name)
        if mine is not None:
            with _noted(notes, told):
                _tell(run, task, mine)
    if notes and not unclosed:
        with suppress(OSError, UserError):  # a summary is only a shorter way to the same report
            keep_summary(run)
    return notes


@contextmanager
def _noted(notes: list[str], told: str) -> Iterator[None]:
    try:
        yield
    except (OSError, UserError) as error:
        notes.append(f"{told}; not all of that could be recorded: {error}")


def give_up_lost(run: Run, report: RunReport, events: list[Event]) -> list[str]:
    """Record of jobs whose sending was never answered that nobody knows them, so that they are not
    looked for for ever; one that turns up after all ends as soon as it starts. As `complete_ends`.
    """
    if not run.is_own:
        return []
    notes = []
    for task, stage in zip(run.plan.tasks(), report.stages, strict=True):
        own = task_events(events, task)
        if not _is_lost(stage, own):
            continue
        name, first = task.stage.name, first_start(own)
        told = f"{run.id}: no answer to sending {name} is recorded, and nobody knows a job of it"
        try:
            if record_once(
                run.path / EVENTS_DIR,
                f"unclear-{name}-{first}",
                "unclear",
                stage=name,
                restart=first,
                reason="long after it was sent, the scheduler knows no job of it",
                **_BY_READER,
            ):
                notes.append(f"{told}: should one turn up, it ends at once, so resume the run")
                keep_summary(run)
        except (OSError, UserError) as error:
            notes.append(f"{told}; not all of that could be recorded: {error}")
    return notes


def _is_lost(stage: StageReport, events: list[Event]) -> bool:
    if stage.state is not StageState.UNKNOWN or stage.job is None or not stage.job.gone:
        return False
    if stage.job_id is not None or is_given_up(events):
        return False
    sent = [event for event in events if event["event"] == "submitting"]
    return bool(sent) and _age(sent[-1]) > _LOST_AFTER


def _age(event: Event) -> timedelta:
    return datetime.now(timezone.utc) - datetime.fromisoformat(event["timestamp"])


def _record(run: Run, task: StageTask, stage: StageReport) -> Event | None:
    """Record an end that the job has not; None where there is none to record, or another has."""
    ended_badly = stage.state in (StageState.FAILED, StageState.CANCELLED)
    if stage.failure is None or stage.job is None or stage.job.gone or not ended_badly:
        return None
    begun = latest_start(task.results_dir, claim_id(run.id, task.name)) is not None
    trains = get_action(task.stage.action).trains
    ended = parse_moment(stage.job.ended)
    recorded = record_once(
        run.path / EVENTS_DIR,
        f"end-{task.name}-{stage.restarts}",
        "finished",
        **task.event_facts(str(stage.job_id)),
        **_BY_READER,
        restart=stage.restarts,
        state=stage.state.value,
        failure_class=stage.failure.failure_class.value,
        reason=f"{stage.failure.evidence}; the job itself wrote down no end",
        **({} if ended is None else {"ended": ended.isoformat()}),
        checkpoints=verified_checkpoints(task.results_dir) if trains and begun else {},
    )
    # The folder is read anew: on NFS a new file of another node may show up late.
    end = recorded_end(task_events(run.events(), task))
    return end if recorded and end is not None and _is_a_readers(end) else None


def _is_a_readers(end: Event) -> bool:
    return _BY_READER.items() <= end.items()


def _tell(run: Run, task: StageTask, end: Event) -> None:
    failed = end["state"] == StageState.FAILED.value
    tell_end(run, task, end["job_id"], _failure(end) if failed else None)


def _close(run: Run, task: StageTask, end: Event) -> bool:
    """Give the results folder its last word about a start whose end a reader has recorded; whether
    that was missing, and the folder is not another's."""
    held, failure = read_claim(task.results_dir), _failure(end)
    claim = claim_id(run.id, task.name)
    if held is None or held.id != claim or held.restart is None or held.ended:
        return False
    close_status(task.results_dir, claim, failure.failure_class, failure.evidence)
    keep_efficiency(run, task)
    return True


def _failure(end: Event) -> Failure:
    return Failure(FailureClass(end["failure_class"]), end.get("reason", ""))
