"""Whoever of a local run's processes dies first: none is left, and the last line stays the last.

Chain runner, stage run, node wrapper and launching process are the real ones; the ranks are scripts
that are stuck in a step and write to status.json all the while.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import sys
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import fake_ranks
import pytest
from launch_support import local_stage, make_run
from process_support import children, gone, is_running, pids_in, wait_until

from rtdetr_slurm.local.start import start_runner
from rtdetr_slurm.plan.model import Stage
from rtdetr_slurm.runs.processes import process_facts
from rtdetr_slurm.runs.run import Run
from rtdetr_slurm.submission.cancel import cancel_run
from rtdetr_slurm.submission.controller import write_controller
from rtdetr_slurm.submission.survey import survey_run

STUCK = """
trap '' USR2 TERM URG
echo $$ > {pids}/$RANK
for _ in $(seq 1500); do sleep 0.02; echo '{{"status": "RUNNING"}}' >> {results}/status.json; done
"""


@pytest.fixture
def folder(tmp_path: Path) -> Iterator[Path]:
    for name in ("pids", "results"):
        (tmp_path / name).mkdir()
    yield tmp_path
    shutil.rmtree(tmp_path)


def stuck_stage(folder: Path, **resources: Any) -> Stage:
    """A stage whose engine, which the site's `python` stands for, is stuck on two ranks."""
    script = STUCK.format(pids=folder / "pids", results=folder / "results")
    (folder / "script").write_text(script)
    engine = folder / "python"
    engine.write_text(
        f'#!/bin/bash\n[ "$1" = -c ] && exec {sys.executable} "$@"\n'
        f'exec {sys.executable} {fake_ranks.__file__} "$(cat {folder}/script)"\n'
    )
    engine.chmod(0o755)
    made = local_stage(folder / "results")
    return replace(
        made,
        launch=replace(made.launch, signal_lead_s=2, python=str(engine)),
        resources=replace(made.resources, **resources),
    )


def started(folder: Path, stage: Stage) -> tuple[Run, list[int]]:
    """A run and its processes: runner, stage run, launching process, ranks."""
    run = make_run(folder, stage)
    write_controller(run)
    run.record("submitting", stage="train")
    runner = start_runner(run, "train", 0)
    run.record("submitted", stage="train", job_id=runner, **process_facts(runner))
    ranks = pids_in(folder / "pids", 2)
    [stage_run] = children(int(runner))
    [launching] = children(stage_run)
    assert set(ranks) <= children(launching)
    return run, [int(runner), stage_run, launching, *ranks]


def ended(run: Run, pids: list[int], folder: Path) -> dict[str, Any]:
    """Waits for the end of all; the last line of status.json."""
    gone(pids[1:], 10)
    wait_until(lambda: any(event["event"] == "finished" for event in run.events()), 10)
    time.sleep(0.2)
    lines = (folder / "results" / "status.json").read_text().splitlines()
    last: dict[str, Any] = json.loads(lines[-1])
    assert last["status"] == "FAILURE"
    return last


@pytest.mark.parametrize(
    ("victim", "failure_class", "reason"),
    [
        (0, "cancelled", "cancelled on request"),
        (1, "unknown", "the process of the stage was killed by SIGKILL"),
        (2, "unknown", "killed by signal 9"),
    ],
    ids=["runner", "stage run", "launching process"],
)
def test_a_killed_process_takes_all_below_it_along(
    folder: Path, victim: int, failure_class: str, reason: str
) -> None:
    run, pids = started(folder, stuck_stage(folder))
    os.kill(pids[victim], signal.SIGKILL)
    last = ended(run, pids, folder)
    assert last["failure_class"] == failure_class
    assert last["reason"].startswith(reason)


def test_cancel_ends_ranks_that_are_stuck(folder: Path) -> None:
    run, pids = started(folder, stuck_stage(folder))
    cancel_run(run)
    assert ended(run, pids, folder)["failure_class"] == "cancelled"


def test_a_stage_run_that_hangs_at_its_time_limit_is_ended_with_its_ranks(folder: Path) -> None:
    """It cannot write down its end any more, so the runner does."""
    run, pids = started(folder, stuck_stage(folder, time_min=0.1))
    os.kill(pids[1], signal.SIGSTOP)
    last = ended(run, pids, folder)
    assert last["failure_class"] == "timeout"
    wait_until(lambda: not is_running(pids[0]), 10)
    report, _ = survey_run(run.path)
    [stage] = report.stages
    assert stage.failure is not None
    assert stage.failure.evidence == "the time limit of 0.1 minutes was over"


def test_a_users_own_modules_are_none_of_the_runners(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (folder / "random.py").write_text("raise SystemExit('not the standard library')")
    monkeypatch.chdir(folder)
    run = make_run(folder, local_stage(folder / "results"))
    write_controller(run)
    _, status = os.waitpid(int(start_runner(run, "train", 0)), 0)
    assert (run.path / "jobs" / "runner.log").read_text() == ""
    assert os.waitstatus_to_exitcode(status) == 1
    assert run.events()[-1]["event"] == "finished"
