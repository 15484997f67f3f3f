"""What became of the time of a task: in the queue, on the allocated GPUs, and in what of it.

Pure; standard library only. Times of events come from the clocks of several machines, so that
none is ever taken for less than nothing.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import TypedDict

from rtdetr_slurm.actions import get_action
from rtdetr_slurm.plan.model import StageTask
from rtdetr_slurm.runs.events import Event
from rtdetr_slurm.runs.live import STARTING, WORKING, Live, StartTimes, check_seconds
from rtdetr_slurm.runs.state import READER, first_start, restart_of


class UsageSummary(TypedDict):
    """A Usage as JSON."""

    starts: int
    queued_s: float
    allocated_s: float
    gpus: int
    gpu_hours: float
    starting_s: Mapping[str, float] | None
    stepping_s: float | None
    validating_s: float | None
    saving_s: float | None
    idle_s: float | None
    loader_wait_s: float | None
    share_in_steps: float | None


@dataclass(frozen=True)
class Usage:
    """Of all starts of a task, as far as is known.

    Attributes:
        starts: how many there were.
        queued_s: from being sent to the first start, and from each requeue to the next start.
        allocated_s: from the beginning to the end of each start.
        gpus: that were allocated, on all nodes; 0 where it runs on CPUs.
        seconds: what rank 0 spent on each of STARTING and WORKING; empty where it told nothing.
        loader_wait_s: part of it in which it waited for a batch.
        share: of the allocated time that was spent in the action's steps; None when unknown.
    """

    starts: int = 0
    queued_s: float = 0.0
    allocated_s: float = 0.0
    gpus: int = 0
    seconds: Mapping[str, float] = field(default_factory=dict)
    loader_wait_s: float = 0.0
    share: float | None = None

    @property
    def gpu_hours(self) -> float:
        return self.allocated_s * self.gpus / 3600

    @property
    def starting_s(self) -> float:
        return sum(self.seconds.get(name, 0.0) for name in STARTING)

    def to_json(self) -> UsageSummary:
        """As `--json`, summary.json and efficiency.json have it; what is not known is null."""
        seconds = {name: round(value, 1) for name, value in self.seconds.items()}
        allocated = round(self.allocated_s, 1)
        idle = round(max(allocated - sum(seconds.values()), 0.0), 1)
        return {
            "starts": self.starts,
            "queued_s": round(self.queued_s, 1),
            "allocated_s": allocated,
            "gpus": self.gpus,
            "gpu_hours": round(self.gpu_hours, 3),
            "starting_s": {name: seconds[name] for name in STARTING} if seconds else None,
            "stepping_s": seconds.get("stepping"),
            "validating_s": seconds.get("validating"),
            "saving_s": seconds.get("saving"),
            "idle_s": idle if seconds else None,
            "loader_wait_s": round(self.loader_wait_s, 1) if seconds else None,
            "share_in_steps": None if self.share is None else round(self.share, 3),
        }

    @staticmethod
    def from_json(data: UsageSummary) -> Usage:
        """Raises ValueError for what is no length of time, or names other times."""
        working = (data["stepping_s"], data["validating_s"], data["saving_s"])
        seconds = {name: value or 0.0 for name, value in zip(WORKING, working, strict=True)}
        starting, waited = data["starting_s"], data["loader_wait_s"] or 0.0
        if starting is not None and starting.keys() != {*STARTING}:
            raise ValueError(
                f"starting_s has {', '.join(starting)}; expected {', '.join(STARTING)}"
            )
        seconds = {} if starting is None else {**starting, **seconds}
        check_seconds(data["queued_s"], data["allocated_s"], waited, *seconds.values())
        return Usage(
            starts=data["starts"],
            queued_s=data["queued_s"],
            allocated_s=data["allocated_s"],
            gpus=data["gpus"],
            seconds=seconds,
            loader_wait_s=waited,
            share=data["share_in_steps"],
        )


@dataclass
class _Start:
    began: datetime
    ended: datetime | None = None

    @property
    def length(self) -> float:
        return 0.0 if self.ended is None else _between(self.began, self.ended)


def usage_of(
    task: StageTask,
    events: Sequence[Event],
    live: Live | None,
    now: datetime | None,
    *,
    alive: datetime | None = None,
    on_nodes: bool = True,
) -> Usage:
    """What became of a task's time.

    Args:
        events: of the task, of all its submissions.
        live: what rank 0 told, of all starts.
        now: while it is queued or runs; None once it has ended, or nobody knows its job any more.
        on_nodes: whether its latest start, should no end of it be on record, still goes on. Not of
            a job that Slurm has put back into the queue after a node failed.
    """
    told = {one.restart: one for one in live.starts} if live else {}
    starts = _starts(events, told, alive, now if on_nodes else None)
    waits = list(_waits(_sent(events), starts, now or _last_end(events)))
    seconds = {
        name: sum(one.seconds.get(name, 0.0) for one in told.values())
        for name in (*STARTING, *WORKING)
        if told
    }
    allocated = sum(start.length for start in starts.values())
    return Usage(
        starts=len(starts),
        queued_s=sum(waits),
        allocated_s=allocated,
        gpus=_gpus(task, live),
        seconds=seconds,
        loader_wait_s=sum(one.loader_wait for one in told.values()),
        share=_share(task, seconds, allocated),
    )


def _starts(
    events: Sequence[Event],
    told: Mapping[int, StartTimes],
    alive: datetime | None,
    now: datetime | None,
) -> dict[int, _Start]:
    """Every start by its number, in order. One that was cut off has lasted until it was last heard
    of: from rank 0, from its launch, or from what the next start has found of that."""
    started = {restart_of(e): e for e in events if e["event"] == "started"}
    begun = {number: _Start(_time(started[number])) for number in sorted(started)}
    for event in events:
        if event["event"] not in ("requeued", "finished") or event.get("recorded_by") == READER:
            continue
        if (start := begun.get(restart_of(event))) is not None:
            start.ended = _time(event)
    latest = max([*begun, first_start(events)])
    for number, start in begun.items():
        if start.ended is None and number == latest and now is not None:
            start.ended = now
        elif start.ended is None:
            later = min((one for one in begun if one > number), default=None)
            found = None if later is None else started[later].get("last_sign")
            signs = [datetime.fromisoformat(found)] if found else []
            signs += [alive] if later is None and alive else []
            signs += [datetime.fromisoformat(told[number].updated)] if number in told else []
            start.ended = max(signs, default=None)
    return begun


def _sent(events: Sequence[Event]) -> dict[int, datetime]:
    """When the task was sent off, by the number of the first start that is to come of it."""
    sent: dict[int, datetime] = {}
    for event in events:
        if event["event"] in ("submitting", "submitted"):
            sent.setdefault(restart_of(event), _time(event))
    return sent


def _waits(
    sent: Mapping[int, datetime], starts: Mapping[int, _Start], until: datetime | None
) -> Iterator[float]:
    """Seconds in the queue before each start, or until now before the first of a submission."""
    if not sent:
        return
    if max(sent) > max(starts, default=-1) and until is not None:
        yield _between(sent[max(sent)], until)
    left: datetime | None = sent[min(sent)]
    for number, start in starts.items():
        left = sent.get(number, left)
        if left is not None:
            yield _between(left, start.began)
        left = start.ended


def _last_end(events: Sequence[Event]) -> datetime | None:
    ends = [event for event in events if event["event"] == "finished"]
    return datetime.fromisoformat(ends[-1].get("ended", ends[-1]["timestamp"])) if ends else None


def _gpus(task: StageTask, live: Live | None) -> int:
    resources = task.stage.resources
    device = task.stage.launch.accelerator or (live.device if live else "cuda")
    return resources.nodes * resources.gpus_per_node if device == "cuda" else 0


def _share(task: StageTask, seconds: Mapping[str, float], allocated: float) -> float | None:
    if not seconds or allocated <= 0:
        return None
    steps = seconds["stepping"]
    if not (steps or get_action(task.stage.action).trains):
        steps = seconds["validating"]
    return min(steps / allocated, 1.0)


def _time(event: Event) -> datetime:
    return datetime.fromisoformat(event["timestamp"])


def _between(first: datetime, second: datetime) -> float:
    return max((second - first).total_seconds(), 0.0)
