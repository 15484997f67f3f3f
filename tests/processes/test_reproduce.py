"""`reproduce` for real, on this machine: a training that was stopped and went on, and the same one
in one piece."""

from __future__ import annotations

import json
import time
from pathlib import Path

import pytest
from local_support import cli, write_workspace
from process_support import wait_until

from rtdetr_slurm.contract import STATUS_JSON
from rtdetr_slurm.runs.run import Run, open_run
from rtdetr_slurm.runs.status import read_status


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("reproduced")
    write_workspace(folder)
    return folder


@pytest.fixture(scope="module")
def interrupted(folder: Path) -> Run:
    """Asked to end in its first epoch or soon after, and gone on with; with a seed of its own."""
    wanted = ["train.num_epochs=8", "train.checkpoint_interval=8", "train.seed=-1"]
    done = cli(folder, "submit", "train.yaml", *wanted, "--json")
    assert done.returncode == 0, done.stderr
    run = open_run(Path(json.loads(done.stdout)["run_dir"]))
    results = Path(run.plan.stages[0].results_dir)
    deadline = time.monotonic() + 120
    while not any("epoch" in line for line in read_status(results / STATUS_JSON)):
        assert time.monotonic() < deadline
        time.sleep(0.1)
    assert cli(folder, "cancel", run.id).returncode == 0
    wait_until(lambda: any(e["event"] == "finished" for e in run.events()))
    assert [*results.glob("interrupted_*.pth")]
    refused = cli(folder, "reproduce", run.id)
    assert refused.returncode == 2
    assert "train is cancelled; allowed: a training that has ended with success" in refused.stderr
    assert cli(folder, "resume", run.id).returncode == 0
    assert cli(folder, "logs", run.id, "--follow").returncode == 0
    return run


def test_the_same_to_the_last_byte_after_an_interruption(folder: Path, interrupted: Run) -> None:
    done = cli(folder, "reproduce", interrupted.id, "--json")
    assert done.returncode == 0, done.stdout + done.stderr
    said = json.loads(done.stdout)
    assert (said["outcome"], said["differences"]) == ("same", [])
    assert said["tensors"] > 500
    assert said["tensor_bytes"] > 1e6
    before, after = said["runs"]
    assert before == interrupted.id
    again = open_run(interrupted.path.parent / after)
    assert again.spec["train"]["seed"] >= 0
    assert [*Path(again.plan.stages[0].results_dir).glob("*.pth")] == [Path(said["checkpoints"][1])]

    # The same question once more, of runs that are there; and of one that is another training.
    done = cli(folder, "reproduce", interrupted.id, "--with", again.id)
    assert (done.returncode, done.stdout.split(":")[0]) == (0, "same"), done.stderr
    assert "equal to the last byte; only the names of the results folders differ" in done.stderr
    wanted = ["train.num_epochs=1", "train.seed=1", "--wait", "--json"]
    other = json.loads(cli(folder, "submit", "train.yaml", *wanted).stdout)["run_id"]
    done = cli(folder, "reproduce", again.id, "--with", other)
    assert (done.returncode, done.stdout.split(":")[0]) == (1, "different"), done.stderr
    assert "model_epoch_007.pth and model_epoch_000.pth" in done.stderr
    done = cli(folder, "reproduce", again.id, "--with", other, "--json")
    differences = json.loads(done.stdout)["differences"]
    assert {"seed", "epoch", "spec.train.num_epochs"} <= {*differences}


def test_what_has_changed_is_named(folder: Path, interrupted: Run) -> None:
    path = folder / "data" / "train" / "annotations.json"
    before = path.read_bytes()
    path.write_bytes(before + b"\n")
    try:
        done = cli(folder, "reproduce", interrupted.id)
    finally:
        path.write_bytes(before)
    assert done.returncode == 2
    assert "cannot be run again as it was, for this has changed" in done.stderr
    assert f"data: {path} has the SHA-256" in done.stderr
