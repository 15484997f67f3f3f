"""What a search may still spend. Pure; standard library only."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timezone

from rtdetr_slurm.contract import FailureClass
from rtdetr_slurm.plan.model import Stage
from rtdetr_slurm.plan.search import Search
from rtdetr_slurm.runs.events import Event
from rtdetr_slurm.runs.state import restart_of

FAILURES_IN_A_ROW = 3
"""So many trials that end because of what is asked of them, one after another, end a search."""
_OF_THE_REQUEST = frozenset({FailureClass.CONFIG, FailureClass.UNKNOWN})


@dataclass(frozen=True)
class Budget:
    """What a search may spend, with what was added to it.

    Attributes:
        trials: that it may train, retries and promotions not counted.
        gpu_hours: None: no limit.
        deadline: None: none.
    """

    trials: int
    gpu_hours: float | None
    deadline: datetime | None


def search_events(events: Sequence[Event], stage: Stage) -> list[Event]:
    """The events about a search and its trials."""
    return [event for event in events if event.get("search") == stage.name]


def budget_of(search: Search, events: Sequence[Event]) -> Budget:
    """Args: events of the search."""
    added = [event for event in events if event["event"] == "extended"]
    hours, deadline = search.gpu_hours, search.deadline
    for event in added:
        hours = None if hours is None else hours + event.get("gpu_hours", 0.0)
        deadline = event.get("deadline", deadline)
    return Budget(
        search.trials + sum(event.get("trials", 0) for event in added),
        hours,
        None if deadline is None else _moment(deadline),
    )


def gpu_hours(stage: Stage, events: Sequence[Event], now: datetime | None = None) -> float:
    """What the trials have taken so far.

    Args:
        events: of the search.
    """
    resources = stage.resources
    gpus = resources.nodes * max(resources.gpus_per_node, 1)
    return seconds_of(events, now) / 3600 * gpus


def seconds_of(events: Sequence[Event], now: datetime | None = None) -> float:
    """How long trials were trained; a start that was cut off, until it was last heard of by the one
    that went on with the trial, and the latest without an end until now."""
    moment = now or datetime.now(timezone.utc)
    ends = {_start_of(e): _time(e) for e in events if e["event"] in ("requeued", "finished")}
    starts = {_start_of(e): e for e in events if e["event"] == "started" and "trial" in e}
    seconds = 0.0
    for (trial, number), event in starts.items():
        until = ends.get((trial, number))
        if until is None and (later := starts.get((trial, number + 1))) is not None:
            sign = later.get("last_sign")
            until = _time(event) if sign is None else datetime.fromisoformat(sign)
        seconds += max(((until or moment) - _time(event)).total_seconds(), 0.0)
    return seconds


def why_over(stage: Stage, events: Sequence[Event], now: datetime | None = None) -> str | None:
    """Why no further trial begins; None where one may.

    Args:
        events: of the search.
    """
    assert stage.search is not None
    if (reason := why_stopped(events)) is not None:
        return reason
    moment = now or datetime.now(timezone.utc)
    budget = budget_of(stage.search, events)
    if budget.deadline is not None and moment >= budget.deadline:
        return f"the deadline has passed (automl.deadline: {budget.deadline.isoformat()})"
    spent = gpu_hours(stage, events, moment)
    if budget.gpu_hours is not None and spent >= budget.gpu_hours:
        return f"{spent:.2f} GPU hours are spent of {budget.gpu_hours:g} (automl.max_gpu_hours)"
    return None


def why_stopped(events: Sequence[Event]) -> str | None:
    """Why the search was stopped, by somebody or by itself; None where it goes on.

    Args:
        events: of the search.
    """
    said = [event for event in events if event["event"] in ("stopping", "going_on")]
    if said and said[-1]["event"] == "stopping":
        return said[-1].get("reason", "it was stopped")
    return None


def failing(events: Sequence[Event]) -> str | None:
    """Why a search is not worth going on with: its last trials have all ended by what is asked of
    them; None where they have not.

    Args:
        events: of the search.
    """
    resumed = [i for i, event in enumerate(events) if event["event"] == "going_on"]
    since = events[resumed[-1] :] if resumed else events
    ends = [event for event in since if event["event"] == "finished" and "trial" in event]
    last = ends[-FAILURES_IN_A_ROW:]
    if len(last) < FAILURES_IN_A_ROW:
        return None
    if not all(event.get("failure_class") in _OF_THE_REQUEST for event in last):
        return None
    told = f"trial {last[-1]['trial']}: {last[-1].get('reason', '')}"
    return f"{FAILURES_IN_A_ROW} trials in a row have failed, the last one: {told}"


def _start_of(event: Event) -> tuple[int | None, int]:
    return event.get("trial"), restart_of(event)


def _time(event: Event) -> datetime:
    return datetime.fromisoformat(event["timestamp"])


def _moment(text: str) -> datetime:
    """Of a time without a zone: this machine's."""
    return datetime.fromisoformat(text).astimezone(timezone.utc)
