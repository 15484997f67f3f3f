"""What a search may still spend, and when it is not worth going on with."""

from __future__ import annotations

from dataclasses import replace
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import Any

import pytest
from search_support import searching

from rtdetr_slurm.automl.budget import (
    budget_of,
    failing,
    gpu_hours,
    search_events,
    why_over,
    why_stopped,
)
from rtdetr_slurm.plan.model import Stage
from rtdetr_slurm.runs.events import Event

BEGAN = datetime(2026, 1, 1, tzinfo=timezone.utc)
HOUR = timedelta(hours=1)


def event(kind: str, after: timedelta = timedelta(0), **data: Any) -> Event:
    made = {"event": kind, "timestamp": (BEGAN + after).isoformat(), "search": "train", **data}
    return made  # type: ignore[return-value]


@pytest.fixture
def stage(tmp_path: Path) -> Stage:
    return searching(tmp_path)


def test_hours_count_every_start_of_every_trial(stage: Stage) -> None:
    """STAGE has two nodes with two GPUs each."""
    events = [
        event("started", trial=0, restart=0),
        event("started", trial=1, restart=0),
        event("requeued", HOUR, trial=0, restart=0),
        event("finished", 2 * HOUR, trial=1, restart=0, state="success"),
        event("started", 3 * HOUR, trial=0, restart=1),
    ]
    assert gpu_hours(stage, events, BEGAN + 3.5 * HOUR) == pytest.approx(4 * (1 + 2 + 0.5))


def test_a_start_that_was_cut_off_counts_until_it_was_last_heard_of(stage: Stage) -> None:
    """Its worker was killed, and another goes on with the trial a day later."""
    sign = (BEGAN + HOUR).isoformat()
    events = [
        event("started", trial=0, restart=0),
        event("started", 24 * HOUR, trial=0, restart=1, last_sign=sign),
        event("finished", 26 * HOUR, trial=0, restart=1, state="success"),
    ]
    assert gpu_hours(stage, events) == pytest.approx(4 * (1 + 2))


def test_no_trial_begins_once_the_hours_are_spent(stage: Stage) -> None:
    assert stage.search is not None
    stage = replace(stage, search=replace(stage.search, gpu_hours=4.0))
    events = [event("started", trial=0, restart=0)]
    assert why_over(stage, events, BEGAN + 0.5 * HOUR) is None
    assert "4.00 GPU hours are spent of 4" in (why_over(stage, events, BEGAN + HOUR) or "")
    events += [event("extended", HOUR, trials=2, gpu_hours=2.0)]
    assert why_over(stage, events, BEGAN + 1.4 * HOUR) is None
    assert budget_of(stage.search, events).trials == 6  # type: ignore[arg-type]


def test_no_trial_begins_after_the_deadline(stage: Stage) -> None:
    assert stage.search is not None
    stage = replace(stage, search=replace(stage.search, deadline="2026-01-01T02:00:00+00:00"))
    assert why_over(stage, [], BEGAN + HOUR) is None
    assert "the deadline has passed" in (why_over(stage, [], BEGAN + 2 * HOUR) or "")
    later = [event("extended", deadline="2026-01-01T03:00:00+00:00")]
    assert why_over(stage, later, BEGAN + 2 * HOUR) is None


def test_what_was_stopped_goes_on_when_somebody_says_so(stage: Stage) -> None:
    events = [event("stopping", reason="enough")]
    assert why_stopped(events) == why_over(stage, events, BEGAN) == "enough"
    events += [event("going_on", HOUR)]
    assert why_stopped(events) is None


def failed(trial: int, failure_class: str) -> Event:
    return event("finished", trial=trial, state="failed", failure_class=failure_class, reason="bad")


def test_three_in_a_row_that_fail_by_what_is_asked_are_enough() -> None:
    good = event("finished", trial=9, state="success")
    assert failing([failed(0, "config"), failed(1, "config")]) is None
    assert failing([failed(0, "config"), failed(1, "config"), good, failed(2, "config")]) is None
    three = [failed(0, "config"), failed(1, "config"), failed(2, "unknown")]
    told = failing([good, *three])
    assert told is not None
    assert "3 trials in a row" in told
    assert "trial 2: bad" in told
    assert failing([failed(0, "config"), failed(1, "infra"), failed(2, "config")]) is None
    assert failing([*three, event("going_on"), failed(3, "config")]) is None


def test_events_of_other_searches_and_stages_are_not_of_this_one(stage: Stage) -> None:
    others = [event("started", search="other", trial=1), {"event": "started", "stage": "train"}]
    assert search_events(others, stage) == []  # type: ignore[arg-type]
