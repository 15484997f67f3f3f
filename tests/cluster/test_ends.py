"""What is said of a training that something ended, on real nodes in real containers."""

from __future__ import annotations

import os
import shutil
import signal
import time
from pathlib import Path

import pytest

from .harness.cli import JOB_LIMIT_S, Cli, Submitted, submit, train_spec, write_spec
from .harness.data import Dataset

pytestmark = pytest.mark.cluster


def processes_of(run: Submitted, rank: int) -> tuple[int, int]:
    """What launches the ranks in the container of one node, and its only rank."""
    folder = run.folder / "jobs" / run.action / f"node-{rank}"
    parents = {}
    for entry in Path("/proc").iterdir():
        try:
            if entry.name.isdigit() and (entry / "cwd").readlink() == folder:
                parents[int(entry.name)] = int(
                    (entry / "stat").read_text().split(")")[1].split()[1]
                )
        except OSError:  # it has ended, or is the kernel's
            continue
    [launching] = [pid for pid, parent in parents.items() if parent not in parents]
    [worker] = [pid for pid, parent in parents.items() if parent == launching]
    return launching, worker


def test_the_evidence_is_the_first_cause(cli: Cli, dataset: Dataset) -> None:
    """Not what srun says when all is over; and nobody calls it a preemption."""
    two = train_spec(dataset, num_nodes=2, num_epochs=500)
    two["job"] = {"max_infra_retries": 0}
    rank = submit(cli, write_spec(cli.folder / "rank.yaml", two))
    container = submit(cli, write_spec(cli.folder / "container.yaml", two), "--again")
    one = train_spec(dataset, num_epochs=500)
    folder = submit(cli, write_spec(cli.folder / "folder.yaml", one))
    runs = (rank, container, folder)
    deadline = time.monotonic() + JOB_LIMIT_S
    while not all(" step " in run.log() for run in runs):
        assert time.monotonic() < deadline, [run.log() for run in runs]
        time.sleep(1)
    os.kill(processes_of(rank, 1)[1], signal.SIGKILL)
    os.kill(processes_of(container, 1)[0], signal.SIGKILL)
    shutil.rmtree(folder.results)
    for run in runs:
        while (stage := run.stage())["state"] == "running":
            assert time.monotonic() < deadline, run.log()
            time.sleep(1)
        assert stage["state"] == "failed", stage
        assert run.events()[-1] == "finished"
    evidence = [run.stage()["failure"]["evidence"] for run in runs]
    assert "rank 1 was killed by SIGKILL" in evidence[0], rank.log()
    assert "srun: error: node2: task 1: Killed" in evidence[1], container.log()
    assert "No such file or directory" in evidence[2], folder.log()
    assert str(folder.results) in evidence[2]
