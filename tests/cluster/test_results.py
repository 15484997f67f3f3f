"""Whose results folder it is, and who has the last word, on the real cluster."""

from __future__ import annotations

import json
import os
import shutil
import signal
import time
from pathlib import Path

import pytest

from rtdetr_slurm.runs.checkpoints import resume_point
from rtdetr_slurm.runs.events import read_events

from .harness import jobs, slurm
from .harness.cli import JOB_LIMIT_S, Cli, Submitted, held_queue, submit, train_spec, write_spec
from .harness.data import Dataset

pytestmark = pytest.mark.cluster


def files(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir() if path.is_file()}


def lines(folder: Path) -> list[dict[str, object]]:
    return [json.loads(line) for line in (folder / "status.json").open()]


def ended(run: Submitted) -> dict[str, object]:
    deadline = time.monotonic() + JOB_LIMIT_S
    while (stage := run.stage())["state"] in ("queued", "running"):
        assert time.monotonic() < deadline, f"{stage}\n{run.log()}"
        time.sleep(1)
    return stage


def test_a_folder_has_one_run_and_its_next_reader_has_the_last_word(
    cli: Cli, cluster: slurm.Slurm, dataset: Dataset
) -> None:
    """Two runs in one folder; the launch of the first is killed without a chance to say anything.
    A third does not adopt what it finds in its folder when it is requeued while it starts."""
    folder = cli.folder / "exp" / "train"
    asked = train_spec(dataset, num_epochs=500, validation_interval=500)
    spec = write_spec(cli.folder / "train.yaml", {**asked, "results_dir": "exp"})
    first = submit(cli, spec)
    second = cli("submit", spec, code=2).stderr
    assert f"results_dir {folder} is in use by run {first.folder.name} (stage train" in second
    assert f"as job {first.job}" in second
    first.wait(lambda stage: stage["epoch"] is not None)
    assert "which is running as job" in cli("submit", spec, "--dry-run", code=2).stderr

    [begun] = [e for e in read_events(first.folder / "events") if e["event"] == "started"]
    os.kill(begun["pid"], signal.SIGKILL)
    jobs.wait(cluster, first.job, seconds=120)
    assert lines(folder)[-1]["status"] == "RUNNING"
    told = cli("status", first.folder)
    assert f"{first.folder.name}: train ended without a word, which is recorded" in told.stderr
    last = lines(folder)[-1]
    assert (last["status"], last["claim"]) == ("FAILURE", f"{first.folder.name}:train")
    assert "the job itself wrote down no end" in str(last["reason"])
    assert cli("status", first.folder).stderr == ""
    assert lines(folder)[-1] == last

    # Its folder is free again, for who goes on from what it has left.
    resumed, _ = resume_point(folder)
    assert resumed is not None
    assert "already holds checkpoints" in cli("submit", spec, "--dry-run", code=2).stderr
    onward = f"train.resume_training_checkpoint_path={resumed.path}"
    cli("submit", spec, onward, "--dry-run")

    # All that a training of one epoch leaves turns up in the folder of a run that waits.
    other = cli.folder / "other" / "train"
    with held_queue(cluster):
        once = ("train.num_epochs=1", "train.validation_interval=1")
        adopter = submit(cli, spec, "results_dir=other", *once)
        assert adopter.stage()["epoch"] is None
        for path in folder.iterdir():
            if path.name != "claim.json":
                shutil.copy(path, other)
        before = files(other)
        assert adopter.stage()["epoch"] is None
    jobs.wait(cluster, adopter.job, until=jobs.ENDED | {"RUNNING"}, seconds=60)
    cluster.command("scontrol", "requeue", adopter.job)
    jobs.wait(cluster, adopter.job, until=frozenset({"PENDING", "RUNNING"}), seconds=60)
    jobs.wait(cluster, adopter.job, seconds=120)
    stage = ended(adopter)
    assert stage["state"] == "failed"
    assert "already holds checkpoints of a training" in str(stage["failure"])
    assert files(other) == before
    starts = [e for e in read_events(adopter.folder / "events") if e["event"] == "started"]
    assert max(event["restart"] for event in starts) == 1
