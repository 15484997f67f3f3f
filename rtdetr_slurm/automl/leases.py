"""Who trains a trial. Standard library only.

Every start of a trial has a number, and of several workers that want to make the same start one
gets it: whoever records it first. The trial is that worker's until it records its end, or until its
job is over; then another goes on with it, as the next start.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta, timezone

from rtdetr_slurm.contract import EVENTS_DIR
from rtdetr_slurm.launch.allocation import Standing
from rtdetr_slurm.plan.model import StageTask
from rtdetr_slurm.runs.alive import last_alive
from rtdetr_slurm.runs.events import Event, record_once
from rtdetr_slurm.runs.run import Run
from rtdetr_slurm.runs.state import restart_of, task_history

_UNLEASED = timedelta(minutes=2)
"""A worker that has taken a trial from the study records its start at once; who has not done so
after this time never will."""


@dataclass(frozen=True)
class Lease:
    """The latest start of a trial.

    Attributes:
        start: its number.
        worker: the task of the array that made it.
        held: whether no end of it is on record.
        finished: whether the trial has ended for good.
        recorded: when it began.
    """

    start: int
    worker: int | None
    job_id: str
    held: bool
    finished: bool
    recorded: datetime


def lease_of(events: Sequence[Event], task: StageTask) -> Lease | None:
    """The latest start of a trial; None where none is on record.

    Args:
        events: of the run.
    """
    own = task_history(events, task)
    starts = [event for event in own if event["event"] == "started"]
    if not starts:
        return None
    last = max(starts, key=restart_of)
    number = restart_of(last)
    ends = [e for e in own if e["event"] in ("requeued", "finished") and restart_of(e) == number]
    return Lease(
        start=number,
        worker=last.get("worker"),
        job_id=last.get("job_id", ""),
        held=not ends,
        finished=any(event["event"] == "finished" for event in ends),
        recorded=datetime.fromisoformat(last["timestamp"]),
    )


def may_take(
    lease: Lease | None,
    mine: tuple[int | None, str],
    standing: Mapping[str, Standing],
    *,
    taken: datetime | None,
    idle: bool,
    now: datetime | None = None,
) -> bool:
    """Whether a worker may go on with a trial that the study calls running.

    Args:
        mine: the worker's own array task and job.
        standing: of jobs that hold trials.
        taken: when the study gave the trial out.
        idle: whether there is nothing else to do: then a trial of a worker that waits in the queue
            is not left to it.
    """
    if lease is None:
        age = (now or datetime.now(timezone.utc)) - taken if taken else timedelta(0)
        return age > _UNLEASED
    if lease.finished:
        return False
    if (lease.worker, lease.job_id) == mine:
        return True
    match standing.get(lease.job_id):
        case Standing.ENDED:
            return True
        case Standing.WAITS:
            return idle
        case _:
            return False


def take(run: Run, task: StageTask, start: int, job_id: str) -> bool:
    """Record a start of a trial; whether it was this call that did.

    Raises:
        OSError: it cannot be recorded.
    """
    name = f"trial-{task.stage.name}-{task.trial}-{start}"
    facts = task.event_facts(job_id)
    sign = last_alive(run, task)
    told = {} if sign is None else {"last_sign": sign.isoformat()}
    return record_once(run.path / EVENTS_DIR, name, "started", **facts, restart=start, **told)


def holders(leases: Iterable[Lease | None]) -> set[str]:
    """The jobs that hold trials."""
    return {lease.job_id for lease in leases if lease is not None and not lease.finished}
