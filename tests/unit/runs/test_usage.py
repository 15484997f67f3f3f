"""What became of a task's time: pure, from events and from what rank 0 has told."""

from __future__ import annotations

from dataclasses import replace
from datetime import datetime, timedelta, timezone
from typing import Any

import pytest
from launch_support import STAGE

from rtdetr_slurm.plan.model import StageTask
from rtdetr_slurm.runs.efficiency import advice
from rtdetr_slurm.runs.events import Event
from rtdetr_slurm.runs.live import Live, StartTimes
from rtdetr_slurm.runs.usage import Usage, usage_of

TASK = StageTask(STAGE)  # two nodes of two GPUs
BEGIN = datetime(2026, 1, 2, 3, 0, tzinfo=timezone.utc)


def at(seconds: float) -> str:
    return (BEGIN + timedelta(seconds=seconds)).isoformat()


def event(seconds: float, name: str, **facts: Any) -> Event:
    return {"schema_version": 1, "timestamp": at(seconds), "event": name, **facts}  # type: ignore[typeddict-item]


def told(restart: int, until: float, **seconds: float) -> StartTimes:
    names = ("container", "imports", "data", "model", "stepping", "validating", "saving")
    return StartTimes(restart, at(until), {n: seconds.get(n, 0.0) for n in names}, loader_wait=4.0)


def live(*starts: StartTimes, device: str = "cuda") -> Live:
    return Live("r:train", device, "stepping", starts[-1], earlier=starts[:-1])


SENT = [event(0, "submitting"), event(1, "submitted", job_id="7")]
TWICE = [
    *SENT,
    event(60, "started", restart=0),
    event(160, "requeued", restart=0),
    event(280, "started", restart=1),
    event(480, "finished", restart=1, state="success"),
]


def test_time_in_the_queue_and_on_the_gpus_counts_over_all_starts() -> None:
    found = usage_of(TASK, TWICE, live(told(0, 150, stepping=50), told(1, 470, stepping=100)), None)
    assert (found.starts, found.queued_s, found.allocated_s) == (2, 60 + 120, 100 + 200)
    assert found.gpus == 4
    assert found.gpu_hours == pytest.approx(300 * 4 / 3600)
    assert found.share == pytest.approx(150 / 300)
    assert found.loader_wait_s == 8
    assert found.to_json()["idle_s"] == 150


def test_what_waits_and_what_runs_counts_until_now() -> None:
    waits = usage_of(TASK, SENT, None, BEGIN + timedelta(seconds=90))
    assert (waits.starts, waits.queued_s, waits.allocated_s, waits.share) == (0, 90, 0, None)
    runs = usage_of(TASK, TWICE[:5], None, BEGIN + timedelta(seconds=300))
    assert (runs.starts, runs.queued_s, runs.allocated_s) == (2, 180, 120)
    assert runs.to_json()["idle_s"] is None, "rank 0 has told nothing"


def test_a_start_that_was_cut_off_lasted_until_rank_0_was_last_heard() -> None:
    """Also where a reader has written down the end, hours later."""
    read = event(9999, "finished", restart=0, state="failed", recorded_by="reader")
    found = usage_of(TASK, [*TWICE[:3], read], live(told(0, 100)), None)
    assert found.allocated_s == 40
    assert usage_of(TASK, [*TWICE[:3], read], None, None).allocated_s == 0


def test_a_start_that_told_nothing_lasted_until_its_launch_was_last_heard() -> None:
    """Also one before the latest: what it left the next one has found."""
    lost = [*TWICE[:3], event(280, "started", restart=1, last_sign=at(90))]
    found = usage_of(TASK, lost, None, None, alive=BEGIN + timedelta(seconds=310))
    assert (found.allocated_s, found.queued_s) == (30 + 30, 60 + 190)
    later = usage_of(TASK, lost, live(told(0, 100), told(1, 300)), None, alive=BEGIN)
    assert later.allocated_s == 40 + 20
    assert usage_of(TASK, TWICE[:3], None, None, alive=BEGIN).allocated_s == 0


def test_a_job_that_waits_after_its_node_failed_holds_no_gpus() -> None:
    now = BEGIN + timedelta(seconds=9999)
    found = usage_of(TASK, TWICE[:3], live(told(0, 100)), now, on_nodes=False)
    assert found.allocated_s == 40


def test_what_was_cancelled_in_the_queue_waited_until_then() -> None:
    """And not until somebody has looked."""
    read = event(9999, "finished", state="cancelled", recorded_by="reader")
    assert usage_of(TASK, [*SENT, read], None, None).queued_s == 9999, "nobody knows better"
    read["ended"] = at(70)
    assert usage_of(TASK, [*SENT, read], None, None).queued_s == 70


def test_clocks_that_differ_make_no_time_less_than_nothing() -> None:
    early = [*SENT, event(-30, "started"), event(-50, "finished", state="success")]
    found = usage_of(TASK, early, None, None)
    assert (found.queued_s, found.allocated_s) == (0, 0)


def test_on_cpus_there_are_no_gpu_hours() -> None:
    for accelerator, device in (("cpu", "cuda"), (None, "cpu")):
        launch = replace(STAGE.launch, accelerator=accelerator)
        task = StageTask(replace(STAGE, launch=launch))
        found = usage_of(task, TWICE, live(told(0, 150), device=device), None)
        assert (found.gpus, found.gpu_hours, found.allocated_s) == (0, 0, 300)


@pytest.mark.parametrize(
    ("action", "work"),
    [("evaluate", "validating"), ("inference", "stepping"), ("inference", "validating")],
)
def test_what_counts_as_steps(action: str, work: str) -> None:
    """Of an evaluation the scoring; an inference of an older version has told of it as such."""
    task = StageTask(replace(STAGE, name=action, action=action))
    times = {"stepping": 0.0, "validating": 0.0} | {work: 75.0}
    assert usage_of(task, TWICE, live(told(1, 470, **times)), None).share == 0.25


def test_a_summary_gives_the_same_usage_back() -> None:
    for told_by in (live(told(0, 150, stepping=50)), None):
        found = usage_of(TASK, TWICE, told_by, None)
        assert Usage.from_json(found.to_json()).to_json() == found.to_json()


def test_a_summary_that_names_other_times_is_refused() -> None:
    summary = usage_of(TASK, TWICE, live(told(0, 150)), None).to_json()
    for starting in ({}, {"container": 1.0}):
        with pytest.raises(ValueError, match="expected container, imports, data, model"):
            Usage.from_json({**summary, "starting_s": starting})


def usage(loader: float = 0.0, gpus: int = 4, **seconds: float) -> Usage:
    return Usage(
        1, 0.0, 100.0, gpus, dict(told(0, 0, **{"stepping": 40.0} | seconds).seconds), loader
    )


@pytest.mark.parametrize(
    ("found", "said"),
    [
        (usage(5), None),
        (Usage(starts=1, allocated_s=100.0, gpus=4), None),
        (usage(30), "the GPUs waited for data for 30% of the time: raise dataset.workers"),
        (usage(30, gpus=1), "the GPU waited for data"),
        (usage(30, gpus=0), "the training waited for data"),
        (usage(130), "the GPUs waited for data for 100% of the time"),
        (usage(12, validating=35.0), "validation took 35% of the time: raise train.validation_"),
        (usage(validating=35.0, stepping=0.0), None),
        (usage(saving=20.0), "checkpoints took 20% of the time: raise train.checkpoint_interval"),
        (usage(imports=9.0, container=12.0), "starting took 21% of the time"),
    ],
)
def test_one_line_of_advice_about_the_largest_loss(found: Usage, said: str | None) -> None:
    text = advice(found)
    assert text is None if said is None else (text or "").startswith(said)
