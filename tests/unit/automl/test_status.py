"""Where a search stands, from its record."""

from __future__ import annotations

from dataclasses import replace
from datetime import datetime, timedelta, timezone
from pathlib import Path

import pytest
from search_support import lay_out_trial, searching_run

from rtdetr_slurm.automl.history import TrialRecord, TrialState
from rtdetr_slurm.automl.leases import take
from rtdetr_slurm.automl.status import RunningTrial, eta_of, status_of
from rtdetr_slurm.automl.study import create_study
from rtdetr_slurm.cli.automl.page import search_page, sparkline, trial_lines
from rtdetr_slurm.plan.model import Array, Stage, StageTask
from rtdetr_slurm.runs.live import Live, StartTimes
from rtdetr_slurm.runs.report import report_run
from rtdetr_slurm.runs.trials import searching_stage


def test_from_the_first_trial_to_the_last(tmp_path: Path) -> None:
    run = searching_run(tmp_path, gpu_hours=8.0)
    stage, search = searching_stage(run)
    study = create_study(search)
    now = datetime.now(timezone.utc)
    before = status_of(run, study, now)
    assert (before.counts, before.running, before.eta_s) == ({"waiting": 3}, [], None)
    for number in range(2):
        assert study.take() is not None
        take(run, StageTask(stage, number, number), 0, f"8{number}")
    lay_out_trial(run, 0, {0: 0.1, 1: 0.3})
    for epoch, value in {0: 0.1, 1: 0.3}.items():
        study.report(0, epoch, {"val_mAP": value})
    study.complete(0, {"seconds": 100.0, "worker": 0})
    facts = StageTask(stage, 0, 0).event_facts("80")
    run.record("finished", **facts, restart=0, state="success")
    study.report(1, 0, {"val_mAP": 0.2})
    found = status_of(run, study, now + timedelta(seconds=40))
    assert found.counts == {"waiting": 1, "running": 1, "complete": 1}
    [running] = found.running
    assert (running.trial.number, running.curve, running.lease and running.lease.worker) == (
        *(1, {0: 0.2}, 1),
    )
    assert running.seconds == pytest.approx(40, abs=2)
    # One trial of 100 s still waits for the one worker, whose trial has 60 s left.
    assert found.eta_s == pytest.approx(160, abs=3)
    page = search_page(found, report_run(run, {}, run.events())).plain
    assert "trials     1 waiting, 1 running, 1 complete (budget 3)" in page
    assert "GPU hours  0.0" in page
    assert "of 8" in page
    assert "trial 1, worker 1  ▅ 0.2000  epoch 1/3, 0:00:" in page
    rows = [line.split() for line in page.splitlines()]
    assert ["1", "0", "complete", "0.3000", "2", "2/3"] in [row[:6] for row in rows]
    assert trial_lines(found)[1] == "trial 1: running, epoch 1/3, val_mAP 0.2000"
    assert found.to_json()["leaderboard"][0]["scores"] == {"val_mAP": 0.3}
    # A worker that was preempted leaves its trial to whoever comes.
    run.record("requeued", **StageTask(stage, 1, 1).event_facts("81"), restart=0)
    page = search_page(status_of(run, study), report_run(run, {}, run.events())).plain
    assert "trial 1, waits for a worker" in page


STARTED = StartTimes(0, "2026-01-01T00:00:00+00:00", {}, 0.0)


def test_how_long_it_will_take(tmp_path: Path) -> None:
    stage = replace(searching_stage(searching_run(tmp_path))[0], array=Array(4, throttle=2))

    def trial(number: int, state: TrialState, **facts: float) -> TrialRecord:
        return TrialRecord(number, state, {}, 3, facts=facts)

    def eta(stage: Stage, *trials: TrialRecord, ran: float = 0.0, room: float = 1e9) -> float:
        live = Live("c", "cpu", "stepping", STARTED, eta_s=50.0)
        running = [
            RunningTrial(one, {}, None, live, ran)
            for one in trials
            if one.state is TrialState.RUNNING
        ]
        found = eta_of(stage, trials, running, room)
        assert found is not None
        return found

    waits = [trial(number, TrialState.WAITING) for number in range(10, 14)]
    ended = trial(0, TrialState.PRUNED, seconds=100.0)
    assert eta(stage, ended, *waits) == 200  # two at a time
    assert eta(stage, ended, *waits, room=30) == 30
    assert eta(stage, ended, trial(1, TrialState.RUNNING), ran=40) == 60
    assert eta(stage, trial(1, TrialState.RUNNING), ran=10) == 50  # as its engine says
    assert eta_of(stage, [ended], [], 1e9) is None
    assert eta_of(stage, waits, [], 1e9) is None


def test_curves_are_drawn_to_one_scale() -> None:
    curve = {0: 0.0, 1: 0.5, 3: 1.0}
    assert sparkline(curve, [0.0, 1.0]) == "▁▅█"
    assert sparkline(curve, [0.0, 2.0]) == "▁▃▅"
    assert sparkline({0: 0.1}, [0.1]) == "▁"
