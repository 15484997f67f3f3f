"""Starts of a stage whose step is a shell script instead of the node wrapper; the real one is in
tests/unit/local and in tests/cluster."""

from __future__ import annotations

import json
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from launch_support import claim_results, local_stage, make_run

from rtdetr_slurm.contract import FailureClass, Status
from rtdetr_slurm.errors import SiteError
from rtdetr_slurm.launch import step
from rtdetr_slurm.launch.allocation import Exclusion, StopReason
from rtdetr_slurm.launch.local_allocation import LocalAllocation
from rtdetr_slurm.launch.stage_run import StageRun
from rtdetr_slurm.launch.step import Step, StopRequest
from rtdetr_slurm.plan.model import Stage, StageTask
from rtdetr_slurm.runs.run import Run


class ShellAllocation(LocalAllocation):
    """Runs a shell script as the step."""

    def __init__(self, script: str) -> None:
        self.script = script
        self.reason = StopReason(FailureClass.PREEMPTED)
        self.refusal: str | None = None
        self.requeued = 0
        self.left_out: tuple[str, ...] = ()
        self.job_id = "77"
        self.killed_after = 30
        self.quiet = False

    def check(self) -> None:
        if self.refusal is not None:
            raise SiteError(self.refusal)

    def mail_first_start_only(self) -> None:
        self.quiet = True

    def why_stopped(self, signum: int, lead_s: int, /) -> StopReason:
        return self.reason

    def nodes(self) -> tuple[str, ...]:
        return (f"n{self.restart}",)

    def kill_wait_s(self) -> int:
        return self.killed_after

    def exclusion(self, bad: Sequence[str], _earlier: Sequence[str], /) -> Exclusion:
        return Exclusion(tuple(bad))

    def requeue(self, exclude: Sequence[str] = (), /) -> None:
        self.requeued += 1
        self.left_out = tuple(exclude)


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Short waits, and the test's own signal handlers back afterwards."""
    monkeypatch.setattr(step, "_POLL_S", 0.02)
    monkeypatch.setattr(Step, "command", shell_command)
    handlers = {s: signal.getsignal(s) for s in (signal.SIGUSR2, signal.SIGTERM)}
    yield
    for number, handler in handlers.items():
        signal.signal(number, handler)


@pytest.fixture
def stage(tmp_path: Path) -> Stage:
    made = local_stage(tmp_path / "results")
    return replace(made, launch=replace(made.launch, requeue=True))


@pytest.fixture
def run(tmp_path: Path, stage: Stage) -> Run:
    """Submitted, and its first start is behind it: what tests put into its folder is its own."""
    made = make_run(tmp_path, stage)
    made.record("submitted", stage="train", job_id="77")
    claim_results(made, StageTask(stage), restart=0)
    return made


def line(status: Status, **data: Any) -> str:
    """Shell text that appends a status line the way the engine does."""
    data_args = ", ".join(f"{key}={value!r}" for key, value in data.items())
    code = (
        "from rtdetr_slurm.runs.status import *; import os, sys; from pathlib import Path; "
        "from rtdetr_slurm.runs.claim import start_of; "
        f"StatusLog(Path(sys.argv[1]), start_of(os.environ)).write(Status.{status.name}, 'x', "
        f"{data_args})"
    )
    return f"{sys.executable} -c {code!r} {{status}}"


def shell_command(self: Step) -> list[str]:
    assert isinstance(self.allocation, ShellAllocation)
    return ["/bin/bash", "-c", self.allocation.script]


def execute(run: Run, stage: Stage, allocation: ShellAllocation, index: int | None = None) -> int:
    allocation.task = StageTask(stage, index)
    status = f"{allocation.task.results_dir}/status.json"
    allocation.script = allocation.script.replace("{status}", status)
    return StageRun(run, allocation, StopRequest({})).execute()


def ends(run: Run, stage: Stage) -> tuple[list[str], dict[str, Any]]:
    """Names of the events, and the last line of status.json."""
    lines = (Path(stage.results_dir) / "status.json").read_text().splitlines()
    return [event["event"] for event in run.events()], json.loads(lines[-1])


def when_started(run: Run, action: Callable[[], Any]) -> None:
    """Do something from another thread a moment after the step has begun."""

    def wait() -> None:
        while not any(event["event"] == "started" for event in run.events()):
            time.sleep(0.02)
        time.sleep(0.3)
        action()

    threading.Thread(target=wait, daemon=True).start()


# The engine's part: at the stop signal it writes PREEMPTED and exits with 75.
STOPPABLE = (
    "trap 'stopped=1' URG; "
    "for i in $(seq 200); do sleep 0.05; "
    f"if [ $stopped ]; then {line(Status.PREEMPTED)}; exit 75; fi; done; exit 9"
)
