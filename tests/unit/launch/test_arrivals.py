"""Nodes on which nothing begins: a step whose container start hangs."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from launch_support import STAGE, make_run
from stage_run_support import ShellAllocation, ends, execute, line, quick, run, stage  # noqa: F401

from rtdetr_slurm.contract import FailureClass, Status
from rtdetr_slurm.engine.process.entry import tell_launch
from rtdetr_slurm.launch import arrivals, step
from rtdetr_slurm.launch.arrivals import LIMIT_S, STARTED_FILE, Arrivals
from rtdetr_slurm.launch.node_errors import read_node_errors
from rtdetr_slurm.plan.model import Endurance, Stage, StageTask
from rtdetr_slurm.runs.run import Run
from rtdetr_slurm.runs.status import StatusLog

# ruff: noqa: F811  (pytest fixtures are arguments of the name they are imported by)


@pytest.fixture
def two(tmp_path: Path) -> tuple[Run, StageTask]:
    """Two nodes, which have folders of their own."""
    run = make_run(tmp_path, replace(STAGE, results_dir=str(tmp_path / "results")))
    task = StageTask(run.plan.stage("train"))
    task.results_dir.mkdir()
    for rank in range(2):
        run.node_dir(task, rank).mkdir(parents=True)
    return run, task


def test_the_node_that_has_not_begun_is_named(two: tuple[Run, StageTask]) -> None:
    found = Arrivals(*two, now=0.0)
    mark = two[0].node_dir(two[1], 0) / STARTED_FILE
    assert found.late(10) == []
    tell_launch({"RTDETR_STARTED": str(mark)})
    assert found.late(LIMIT_S - 1) == []
    late = found.late(LIMIT_S + 9)
    assert late == [1]
    found.refuse(late, ("node3", "node4"))
    refusal = read_node_errors(*two)
    assert refusal is not None
    assert refusal.nodes == ("node4",)
    assert refusal.failure.failure_class is FailureClass.INFRA
    assert refusal.failure.evidence.startswith(
        "node 1 (node4): its program has not begun 30 min after srun: its container"
    )


def test_where_all_have_begun_nobody_is_late(two: tuple[Run, StageTask]) -> None:
    found = Arrivals(*two, now=0.0)
    for rank in range(2):
        (two[0].node_dir(two[1], rank) / STARTED_FILE).touch()
    assert found.late(1e9) == []


def test_an_engine_that_makes_no_mark_has_begun_when_it_writes(
    two: tuple[Run, StageTask],
) -> None:
    """That of an older image."""
    status = StatusLog(two[1].results_dir / "status.json")
    status.write(Status.STARTED)  # the launch, before the step
    found = Arrivals(*two, now=0.0)
    assert Arrivals(*two, now=0.0).late(LIMIT_S) == [0, 1]
    status.write(Status.STARTED)
    assert found.late(LIMIT_S) == []
    assert found.late(1e9) == []


def test_nobody_looks_where_nobody_is_to(two: tuple[Run, StageTask]) -> None:
    launch = replace(STAGE.launch, endurance=Endurance(hang_minutes=0))
    task = StageTask(replace(two[1].stage, launch=launch))
    assert Arrivals(two[0], task, now=0.0).late(1e9) == []


def test_a_start_that_hangs_goes_back_to_the_queue(
    run: Run, stage: Stage, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also where a killed process does not end."""
    monkeypatch.setattr(arrivals, "LIMIT_S", 0.1)
    monkeypatch.setattr(arrivals, "_LOOK_S", 0.0)
    monkeypatch.setattr(step, "_SIGNAL_EVERY_S", 0.05)
    monkeypatch.setattr(step, "_KILLED_S", 0.1)
    monkeypatch.setattr(ShellAllocation, "signal_step", lambda *_: None)
    host = ShellAllocation("sleep 60")
    assert execute(run, stage, host) == 75
    assert (host.requeued, host.left_out) == (1, ("n0",))
    [back] = [event for event in run.events() if event["event"] == "requeued"]
    assert back["failure_class"] == FailureClass.INFRA
    assert back["reason"].startswith("node 0 (n0): its program has not begun")
    assert ends(run, stage)[1]["status"] == "PREEMPTED"
