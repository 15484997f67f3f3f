"""Who trains a trial, and when another may go on with it."""

from __future__ import annotations

from dataclasses import replace
from datetime import datetime, timedelta, timezone
from pathlib import Path

import pytest
from launch_support import make_run
from search_support import searching

from rtdetr_slurm.automl.leases import Lease, holders, lease_of, may_take, take
from rtdetr_slurm.launch.allocation import Standing
from rtdetr_slurm.plan.model import StageTask
from rtdetr_slurm.runs.state import first_start, task_events

NOW = datetime(2026, 1, 1, tzinfo=timezone.utc)
HELD = Lease(start=1, worker=2, job_id="7_2", held=True, finished=False, recorded=NOW)
MINE, OTHER = (2, "7_2"), (0, "7_0")


def test_of_two_that_make_the_same_start_one_does(tmp_path: Path) -> None:
    run = make_run(tmp_path, searching(tmp_path))
    trial = StageTask(run.plan.stages[0], 1, trial=5)
    assert lease_of(run.events(), trial) is None
    assert take(run, trial, 0, "7_1")
    assert not take(run, replace(trial, index=0), 0, "7_0")
    found = lease_of(run.events(), trial)
    assert found is not None
    assert (found.start, found.worker, found.job_id, found.held) == (0, 1, "7_1", True)
    assert lease_of(run.events(), replace(trial, trial=4)) is None


def test_the_latest_start_counts_and_its_end(tmp_path: Path) -> None:
    run = make_run(tmp_path, searching(tmp_path))
    trial = StageTask(run.plan.stages[0], 1, trial=5)
    take(run, trial, 0, "7_1")
    run.record("requeued", **trial.event_facts("7_1"), restart=0, failure_class="preempted")
    found = lease_of(run.events(), trial)
    assert found is not None
    assert not found.held
    assert not found.finished
    take(run, replace(trial, index=0), 1, "7_0")
    found = lease_of(run.events(), trial)
    assert found is not None
    assert (found.start, found.worker, found.held) == (1, 0, True)
    assert holders([found, None]) == {"7_0"}
    run.record("finished", **trial.event_facts("7_0"), restart=1, state="success")
    found = lease_of(run.events(), trial)
    assert found is not None
    assert found.finished
    assert holders([found]) == set()


def test_what_is_on_record_of_trials_is_no_workers(tmp_path: Path) -> None:
    """A worker whose trial ended has not ended, and it has started as often as its job."""
    run = make_run(tmp_path, searching(tmp_path))
    worker = StageTask(run.plan.stages[0], 1)
    trial = replace(worker, trial=5)
    take(run, trial, 3, "7_1")
    run.record("finished", **trial.event_facts("7_1"), restart=3, state="success")
    assert task_events(run.events(), worker) == []
    assert first_start(run.events()) == 0


@pytest.mark.parametrize(
    ("mine", "standing", "idle", "expected"),
    [
        (MINE, {}, False, True),  # it comes back to its own
        (OTHER, {"7_2": Standing.RUNS}, True, False),
        (OTHER, {"7_2": Standing.WAITS}, False, False),
        (OTHER, {"7_2": Standing.WAITS}, True, True),
        (OTHER, {"7_2": Standing.ENDED}, False, True),
        (OTHER, {}, True, False),  # nobody knows
        ((2, "9_2"), {"7_2": Standing.RUNS}, True, False),  # of an earlier submission
        ((2, "9_2"), {"7_2": Standing.ENDED}, False, True),
    ],
)
def test_a_trial_is_its_workers_until_that_is_gone(
    mine: tuple[int, str], standing: dict[str, Standing], idle: bool, expected: bool
) -> None:
    for held in (True, False):
        lease = replace(HELD, held=held)
        assert may_take(lease, mine, standing, taken=NOW, idle=idle) is expected
    assert not may_take(replace(HELD, finished=True), MINE, standing, taken=NOW, idle=True)


def test_a_trial_that_was_taken_and_never_begun_is_free_after_a_while() -> None:
    for seconds, expected in ((10, False), (1000, True)):
        now = NOW + timedelta(seconds=seconds)
        assert may_take(None, MINE, {}, taken=NOW, idle=False, now=now) is expected
    assert not may_take(None, MINE, {}, taken=None, idle=True, now=NOW)
