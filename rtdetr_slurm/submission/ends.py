"""Ends that a job could not write down itself, completed by the next reader of its run."""

from __future__ import annotations

from contextlib import suppress
from datetime import datetime, timedelta, timezone

from rtdetr_slurm.actions import get_action
from rtdetr_slurm.contract import EVENTS_DIR
from rtdetr_slurm.errors import UserError
from rtdetr_slurm.plan.model import StageTask
from rtdetr_slurm.runs.artefacts import verified_checkpoints
from rtdetr_slurm.runs.claim import claim_id, latest_start
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

_BY_READER = {"recorded_by": READER}
_LOST_AFTER = timedelta(hours=1)
"""No controller takes so long to queue a job that it was sent."""


def complete_ends(run: Run, report: RunReport, events: list[Event]) -> list[str]:
    """Record the ends of jobs that were killed before they could, and give their status.json its
    last line; returns a line about each.

    Only what the scheduler says has ended, only by the run's owner, and once for several readers.

    Args:
        report: of this moment, with what the scheduler says.
    """
    if not run.is_own:
        return []
    notes = []
    for task, stage in zip(run.plan.tasks(), report.stages, strict=True):
        ended_badly = stage.state in (StageState.FAILED, StageState.CANCELLED)
        silent = recorded_end(task_events(events, task)) is None
        if stage.failure is None or stage.job is None or stage.job.gone:
            continue
        if not (ended_badly and silent):
            continue
        reason = f"{stage.failure.evidence}; the job itself wrote down no end"
        failure = Failure(stage.failure.failure_class, reason)
        told = f"{run.id}: {task.name} ended without a word"
        try:
            if _record(run, task, stage, failure):
                notes.append(f"{told}, which is recorded now")
                failed = stage.state is StageState.FAILED
                tell_end(run, task, str(stage.job_id), failure if failed else None)
        except (OSError, UserError) as error:
            notes.append(f"{told}; not all of that could be recorded: {error}")
    if notes:
        with suppress(OSError, UserError):  # a summary is only a shorter way to the same report
            keep_summary(run)
    return notes


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
    sent = [event["timestamp"] for event in events if event["event"] == "submitting"]
    now = datetime.now(timezone.utc)
    return bool(sent) and now - datetime.fromisoformat(sent[-1]) > _LOST_AFTER


def _record(run: Run, task: StageTask, stage: StageReport, failure: Failure) -> bool:
    claim = claim_id(run.id, task.name)
    begun = latest_start(task.results_dir, claim) is not None
    trains = get_action(task.stage.action).trains
    recorded = record_once(
        run.path / EVENTS_DIR,
        f"end-{task.name}-{stage.restarts}",
        "finished",
        **task.event_facts(str(stage.job_id)),
        **_BY_READER,
        restart=stage.restarts,
        state=stage.state.value,
        failure_class=failure.failure_class.value,
        reason=failure.evidence,
        checkpoints=verified_checkpoints(task.results_dir) if trains and begun else {},
    )
    # The folder is read anew: on NFS a new file of another node may show up late.
    end = recorded_end(task_events(run.events(), task))
    if not recorded or end is None or not _BY_READER.items() <= end.items():
        return False
    close_status(task.results_dir, claim, failure.failure_class, failure.evidence)
    if begun:
        keep_efficiency(run, task)
    return True
