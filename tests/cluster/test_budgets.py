"""What a job may cost: it ends when its requeues, its retries or its hours are used up."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import time
from pathlib import Path

import pytest

from .harness import jobs, slurm
from .harness.cli import JOB_LIMIT_S, Cli, Submitted, submit, train_spec, write_spec
from .harness.data import Dataset
from .harness.processes import ranks_of

pytestmark = pytest.mark.cluster


@pytest.fixture
def spec(few: Dataset, tmp_path: Path) -> Path:
    """A training without end."""
    endless = {"num_epochs": 100000, "validation_interval": 100000, "checkpoint_interval": 2}
    content = train_spec(few, **endless)
    content["dataset"]["batch_size"] = 1
    return write_spec(tmp_path / "train.yaml", content)


def steps(run: Submitted, start: int) -> None:
    """Wait until start number `start` has made a step."""
    deadline = time.monotonic() + JOB_LIMIT_S
    while True:
        starts = run.log().split("rtdetr-slurm: starts ")
        if len(starts) == start + 2 and re.search(r"epoch \d+/\d+ step ", starts[-1]):
            return
        assert time.monotonic() < deadline, starts[-1]
        assert "rtdetr-slurm: failed: " not in starts[-1], starts[-1]
        time.sleep(0.5)


def hang(run: Submitted) -> None:
    [rank] = ranks_of(f"{run.folder.name}:train")
    os.kill(int(rank["pid"]), signal.SIGSTOP)


def end_of(run: Submitted) -> tuple[str, str]:
    """Failure class and evidence of a run that has failed for good."""
    stage = run.wait_for_end()
    assert stage["state"] == "failed", run.log()
    failure_class, evidence = stage["failure"]["class"], stage["failure"]["evidence"]
    assert evidence.startswith(run.status_lines()[-1]["reason"])
    return failure_class, evidence


def test_requeues_retries_and_hours(cli: Cli, cluster: slurm.Slurm, spec: Path) -> None:
    hours = submit(cli, spec, "job.max_hours=0.04")  # 84 s until it is asked to stop
    retried = submit(cli, spec, "job.max_infra_retries=1", "job.hang_minutes=0.4")
    others = {*hours.folder.parent.iterdir()}
    followed = subprocess.Popen(
        ["rtdetr-slurm", "submit", spec, "--follow", "job.max_requeues=0"],
        env=dict(cli.env),
        cwd=cli.folder,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
        # Where the tests run in the background, ctrl-C is ignored, and so it would be there.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )
    assert followed.stdout is not None
    while "epoch" not in (line := followed.stdout.readline()):
        assert line, "the command ended before the first step"
    os.killpg(followed.pid, signal.SIGINT)  # as a terminal's ctrl-C: it only detaches
    assert followed.wait(timeout=60) == 130
    [folder] = {*hours.folder.parent.iterdir()} - others
    [stage] = cli.json("status", folder)["stages"]
    requeued = Submitted(cli, folder, stage["job_id"], "train")
    assert stage["state"] == "running"

    cluster.command("scontrol", "requeue", requeued.job)
    steps(retried, 0)
    hang(retried)
    steps(retried, 1)
    hang(retried)

    failure_class, evidence = end_of(requeued)
    assert failure_class == "preempted"
    assert re.search(r"put back \d times.*\(job\.max_requeues\)", evidence)
    failure_class, evidence = end_of(hours)
    assert failure_class == "timeout"
    assert re.match(
        r"it was stopped in time; the 0\.04 hours that it may take in all are used up "
        r"\(job\.max_hours\); \S+\.pth is left to resume from",
        evidence,
    ), evidence
    failure_class, evidence = end_of(retried)
    assert failure_class == "infra"
    assert "no step for" in evidence
    assert evidence.endswith("; this was tried again 1 times already (job.max_infra_retries)")
    for run in (hours, retried, requeued):
        assert jobs.state(cluster, run.job) != "PENDING"
