"""The chain runner: what starts, in which order, and what ends it. Shell scripts are the jobs here;
test_local.py has the real ones."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path

import pytest
from launch_support import local_stage, make_run

from rtdetr_slurm.local.runner import Runner
from rtdetr_slurm.plan.model import Array, Dependency, DependencyKind, Origin, Stage, StageTask
from rtdetr_slurm.runs.processes import process_facts
from rtdetr_slurm.runs.run import Run


@pytest.fixture(autouse=True)
def handlers() -> Iterator[None]:
    """The test's own signal handlers are back afterwards."""
    before = {s: signal.getsignal(s) for s in (signal.SIGTERM, signal.SIGINT)}
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


LISTENING = """
import os, signal, sys
signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGUSR2, signal.SIGTERM})
os.execv("/bin/bash", ["bash", "-c", sys.argv[1]])
"""
"""As a stage run does when it can hear the signals; a shell has no means to."""


class Scripts(Runner):
    """Runs a shell script for each stage, and notes what started."""

    def __init__(self, run: Run, scripts: Mapping[str, str]) -> None:
        super().__init__(run)
        self.scripts = scripts
        self.started: list[str] = []

    def command(self, task: StageTask) -> list[str]:
        self.started.append(task.name)
        script = self.scripts.get(task.name, "exit 0")
        return [sys.executable, "-I", "-S", "-c", LISTENING, script]

    def states(self) -> dict[str, str]:
        return {name: state.value for name, state in self._states.items()}


def stage(root: Path, name: str, *after: tuple[str, DependencyKind], tasks: int = 0) -> Stage:
    depends_on = tuple(Dependency(Origin(on), kind) for on, kind in after)
    array = Array(tasks) if tasks else None
    made = local_stage(root / name)
    return replace(made, name=name, depends_on=depends_on, array=array)


def test_a_stage_starts_when_its_dependencies_have_come_true(tmp_path: Path) -> None:
    run = make_run(
        tmp_path,
        stage(tmp_path, "a"),
        stage(tmp_path, "b", ("a", "afterok")),
        stage(tmp_path, "c", ("b", "afterok")),
        stage(tmp_path, "d", ("b", "afterany")),
        stage(tmp_path, "e", ("a", "afterok"), ("b", "afterok")),
    )
    runner = Scripts(run, {"b": "exit 1"})
    assert runner.execute() == 1
    assert runner.started == ["a", "b", "d"]
    states = {"a": "success", "b": "failed", "c": "skipped", "d": "success", "e": "skipped"}
    assert runner.states() == states


def test_tasks_of_arrays_are_stages_of_their_own(tmp_path: Path) -> None:
    run = make_run(
        tmp_path,
        stage(tmp_path, "a", tasks=3),
        stage(tmp_path, "b", ("a", "aftercorr"), tasks=3),
        stage(tmp_path, "c", ("a", "afterok")),
    )
    told = f"echo $RTDETR_SLURM_LOCAL_JOB_ID $RTDETR_SLURM_LOCAL_TASK > {tmp_path}/told"
    runner = Scripts(run, {"a.1": "exit 1", "a.2": told})
    assert runner.execute() == 1
    assert runner.started == ["a.0", "a.1", "a.2", "b.0", "b.2"]
    assert runner.states()["c"] == "skipped"
    assert (tmp_path / "told").read_text().split() == [str(os.getpid()), "2"]
    assert run.log_path("a", f"{os.getpid()}_2").exists()


def test_a_stage_of_another_run_is_waited_for(tmp_path: Path) -> None:
    parent = make_run(tmp_path, stage(tmp_path, "train"), run_id="train-20260101-000000-aaaa")
    parent.record("submitted", stage="train", job_id="1")
    on = Dependency(Origin("train", str(parent.path)))
    run = make_run(tmp_path, replace(stage(tmp_path, "evaluate"), depends_on=(on,)))

    def end() -> None:
        time.sleep(0.5)
        parent.record("finished", stage="train", job_id="1", restart=0, state="success")

    threading.Thread(target=end, daemon=True).start()
    runner = Scripts(run, {})
    begun = time.monotonic()
    assert runner.execute() == 0
    assert time.monotonic() - begun > 0.4
    failure = {"state": "failed", "failure_class": "config", "reason": "no"}
    parent.record("finished", stage="train", job_id="1", restart=1, **failure)
    later = make_run(
        tmp_path, replace(stage(tmp_path, "again"), depends_on=(on,)), run_id="train-2"
    )
    runner = Scripts(later, {})
    assert runner.execute() == 1
    assert runner.states() == {"again": "skipped"}


def test_a_run_whose_runner_was_killed_is_not_waited_for(tmp_path: Path) -> None:
    """It can write down no end any more, neither of what it ran nor of what waited."""
    parent = make_run(
        tmp_path,
        stage(tmp_path, "train"),
        stage(tmp_path, "export", ("train", "afterok")),
        run_id="train-20260101-000000-aaaa",
    )
    dead = subprocess.Popen(["sleep", "60"])
    facts = {"job_id": str(dead.pid), **process_facts(str(dead.pid))}
    for name in ("train", "export"):
        parent.record("submitted", stage=name, **facts)
    parent.record("started", stage="train", job_id=facts["job_id"], restart=0)
    run = make_run(
        tmp_path,
        *(
            replace(stage(tmp_path, name), depends_on=(Dependency(Origin(on, str(parent.path))),))
            for name, on in (("evaluate", "train"), ("inference", "export"))
        ),
    )

    def end() -> None:
        time.sleep(0.5)
        dead.kill()
        dead.wait()

    threading.Thread(target=end, daemon=True).start()
    runner = Scripts(run, {})
    begun = time.monotonic()
    assert runner.execute() == 1
    assert time.monotonic() - begun > 0.4
    assert runner.states() == {"evaluate": "skipped", "inference": "skipped"}


def limited(root: Path, seconds: float) -> Stage:
    made = stage(root, "a")
    return replace(
        made,
        resources=replace(made.resources, time_min=seconds / 60),  # type: ignore[arg-type]
        launch=replace(made.launch, signal_lead_s=60),
    )


def test_a_stage_near_its_time_limit_is_warned_once(tmp_path: Path) -> None:
    script = f"trap 'echo x >> {tmp_path}/warned' USR2; for i in $(seq 10); do sleep 0.1; done"
    runner = Scripts(make_run(tmp_path, limited(tmp_path, 30)), {"a": script})
    assert runner.execute() == 0
    assert (tmp_path / "warned").read_text() == "x\n"


def test_a_stage_beyond_its_time_limit_is_ended(tmp_path: Path) -> None:
    runner = Scripts(make_run(tmp_path, limited(tmp_path, 1)), {"a": "trap '' USR2; sleep 60"})
    begun = time.monotonic()
    assert runner.execute() == 1
    assert time.monotonic() - begun < 20


def test_a_request_to_stop_ends_the_stage_and_cancels_the_rest(tmp_path: Path) -> None:
    run = make_run(tmp_path, stage(tmp_path, "a"), stage(tmp_path, "b", ("a", "afterany")))
    runner = Scripts(run, {"a": f"trap 'exit 1' TERM; touch {tmp_path}/up; sleep 60 & wait"})

    def stop() -> None:
        while not (tmp_path / "up").exists():
            time.sleep(0.05)
        os.kill(os.getpid(), signal.SIGTERM)

    threading.Thread(target=stop, daemon=True).start()
    assert runner.execute() == 1
    assert runner.started == ["a"]
    [end] = [event for event in run.events() if event["event"] == "finished"]
    assert (end["stage"], end["state"]) == ("b", "cancelled")
