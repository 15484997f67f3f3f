"""The local site for real: chain runner, launch, node wrapper and engine, as a user calls them."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any

import pytest
from launch_support import write_checkpoint
from local_support import EVALUATED, cli, write_workspace

from rtdetr_slurm.runs.run import Run, open_run

FOLLOW_UP = ("job.then=[evaluate]", EVALUATED)
BOTH = {"train", "evaluate"}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("local run, with: a name")
    write_workspace(folder)
    write_checkpoint(folder / "broken.pth")  # as far as can be seen without torch
    return folder


def status_lines(run: Run) -> list[dict[str, Any]]:
    path = Path(run.plan.stages[0].results_dir) / "status.json"
    return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []


def test_submit_detaches_and_cancel_ends_the_training(folder: Path) -> None:
    begun = time.monotonic()
    done = cli(folder, "submit", "train.yaml", "train.num_epochs=2000", *FOLLOW_UP, "--json")
    assert done.returncode == 0, done.stderr
    assert time.monotonic() - begun < 20, "submit has waited for the training"
    run = open_run(Path(json.loads(done.stdout)["run_dir"]))
    wait_until(lambda: bool(status_lines(run)))
    stages = json.loads(cli(folder, "status", run.id, "--json").stdout)["stages"]
    assert [stage["state"] for stage in stages] == ["running", "queued"]
    assert cli(folder, "cancel", run.id).returncode == 0
    wait_until(lambda: {e["stage"] for e in run.events() if e["event"] == "finished"} == BOTH)
    stage, after = json.loads(cli(folder, "status", run.id, "--json").stdout)["stages"]
    assert after["state"] == "cancelled"
    assert (stage["state"], stage["failure"]["class"]) == ("cancelled", "cancelled")
    last = status_lines(run)[-1]
    assert (last["status"], last["failure_class"]) == ("FAILURE", "cancelled")
    wait_until(lambda: not Path(f"/proc/{stage['job_id']}").exists())


def wait_until(condition: Any, seconds: float = 60) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "waited in vain"
        time.sleep(0.2)


def test_a_failing_stage_is_told_from_end_to_end_and_what_follows_is_skipped(folder: Path) -> None:
    broken = "train.resume_training_checkpoint_path=broken.pth"
    done = cli(folder, "submit", "train.yaml", broken, *FOLLOW_UP, "--wait", "--json")
    assert done.returncode == 1, done.stderr
    document = json.loads(done.stdout)
    train, evaluate = document["stages"]
    assert (train["state"], evaluate["state"]) == ("failed", "skipped")
    assert train["failure"]["class"] == "config"
    assert "broken.pth" in train["failure"]["evidence"]
    assert evaluate["detail"] == f"train failed: {train['failure']['evidence']}"
    run = open_run(Path(document["run_dir"]))
    own = [event["event"] for event in run.events() if event["stage"] == "train"]
    assert own == ["submitting", "submitted", "started", "resolved", "finished"]
    last = status_lines(run)[-1]
    assert (last["status"], last["failure_class"]) == ("FAILURE", "config")
    assert "broken.pth" in cli(folder, "logs", run.id).stdout
    shown = cli(folder, "status", run.id).stdout
    assert f"state        skipped ({evaluate['detail']})" in shown
