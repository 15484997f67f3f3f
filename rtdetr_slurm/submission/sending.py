"""What of a run is sent off, and what of it may be under way."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta, timezone
from typing import Any

from rtdetr_slurm.contract import Env
from rtdetr_slurm.plan.model import Stage, StageTask
from rtdetr_slurm.runs.events import Event
from rtdetr_slurm.runs.processes import is_alive
from rtdetr_slurm.runs.run import Run
from rtdetr_slurm.runs.state import (
    first_start,
    is_to_end,
    job_id_of,
    recorded_end,
    task_events,
)
from rtdetr_slurm.slurm.job_ids import array_of

_LONGEST = timedelta(minutes=10)
"""More than sbatch, and the look for a job that it does not answer for, are given."""


@dataclass(frozen=True)
class Sending:
    """A stage, or some tasks of its array, as one job.

    Attributes:
        first: number of the first start of that job.
        tasks: of the array; None: all of it.
        why: it is sent once more.
        key: that its model files are encrypted with; None: they are not, or it was kept before.
    """

    stage: Stage
    first: int = 0
    tasks: tuple[int, ...] | None = None
    why: str | None = None
    key: str | None = field(default=None, repr=False)

    def its_tasks(self) -> list[StageTask]:
        """What of the stage is sent."""
        return [one for one in self.stage.tasks() if self.tasks is None or one.index in self.tasks]

    def secrets(self, environ: Mapping[str, str]) -> dict[str, str]:
        """Where the values of its secrets are; the key is never taken from `environ` as it is."""
        found = {name: value for name, value in environ.items() if name != Env.ENCRYPTION_KEY}
        return found if self.key is None else {**found, Env.ENCRYPTION_KEY: self.key}

    def facts(self) -> dict[str, Any]:
        """What every event of this sending holds."""
        tasks = {} if self.tasks is None else {"tasks": [*self.tasks]}
        return {"stage": self.stage.name, "restart": self.first, **tasks}

    def token(self, run: Run) -> str:
        return token(run.id, self.stage.name, self.first)


@dataclass(frozen=True)
class OpenTask:
    """A task that was sent off and has no recorded end.

    Attributes:
        token: of its job.
        job_id: as recorded, or found by the token; None while neither is so.
        others: the ids of the run's other jobs.
    """

    run: Run
    task: StageTask
    job_id: str | None
    events: Sequence[Event]
    others: frozenset[str] = frozenset()

    @property
    def token(self) -> str:
        return token(self.run.id, self.task.stage.name, first_start(self.events))


def open_tasks(run: Run, events: Sequence[Event]) -> list[OpenTask]:
    """The tasks that have a job, or may have one, and no recorded end."""
    known = {array_of(event["job_id"]) for event in events if "job_id" in event}
    found = []
    for task in run.plan.tasks():
        own = task_events(events, task)
        names = {event["event"] for event in own}
        job_id = job_id_of(own, task)
        may_have_one = "submitting" in names and "refused" not in names
        if recorded_end(own) is None and (job_id is not None or may_have_one):
            others = known - {array_of(job_id or "")}
            found.append(OpenTask(run, task, job_id, own, frozenset(others)))
    return found


def being_sent(tasks: Sequence[OpenTask]) -> Event | None:
    """The `submitting` event of a task that has no answer yet, and whose sender is still at work,
    or may be on another machine."""
    for one in tasks:
        if one.job_id is None and not is_to_end(one.events):
            for event in one.events:
                if event["event"] == "submitting" and _may_be_at_work(event):
                    return event
    return None


def _may_be_at_work(submitting: Event) -> bool:
    alive = is_alive(str(submitting.get("pid")), submitting)
    if alive is None:
        began = datetime.fromisoformat(submitting["timestamp"])
        return datetime.now(timezone.utc) - began < _LONGEST
    return alive


def token(run_id: str, stage: str, first: int = 0) -> str:
    """What marks a job as this stage of this run, in the job's comment.

    Args:
        first: number of the job's first start.
    """
    return f"rtdetr-slurm:{run_id}:{stage}" + (f":{first}" if first else "")
