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


def processes_of(run: Submitted, rank: int) -> dict[int, str]:
    """Process id → command line of what runs in the container of one node, parents first."""
    folder = run.folder / "jobs" / run.action / f"node-{rank}"
    found = {}
    for entry in Path("/proc").iterdir():
        try:
            if entry.name.isdigit() and (entry / "cwd").readlink() == folder:
                found[int(entry.name)] = (entry / "cmdline").read_text().replace("\0", " ")
        except OSError:  # it has ended, or is the kernel's
            continue
    return dict(sorted(found.items()))


def test_the_evidence_is_the_first_cause(cli: Cli, dataset: Dataset) -> None:
    """Not what srun says when all is over; and nobody calls it a preemption."""
    two = train_spec(dataset, num_nodes=2, num_epochs=500)
    rank = submit(cli, write_spec(cli.folder / "rank.yaml", two))
    container = submit(cli, write_spec(cli.folder / "container.yaml", two))
    folder = submit(cli, write_spec(cli.folder / "folder.yaml", train_spec(dataset)))
    runs = (rank, container, folder)
    deadline = time.monotonic() + JOB_LIMIT_S
    while not all(" step " in run.log() for run in runs):
        assert time.monotonic() < deadline, [run.log() for run in runs]
        time.sleep(1)
    [worker, *_] = [pid for pid, command in processes_of(rank, 1).items() if ".worker " in command]
    os.kill(worker, signal.SIGKILL)
    os.kill(next(iter(processes_of(container, 1))), signal.SIGKILL)
    shutil.rmtree(folder.results)
    for run in runs:
        while (stage := run.stage())["state"] == "running":
            assert time.monotonic() < deadline, run.log()
            time.sleep(1)
        assert stage["state"] == "failed", stage
        assert run.events()[-1] == "finished"
    evidence = [run.stage()["failure"]["evidence"] for run in runs]
    assert "rank 1 was ended by SIGKILL" in evidence[0], rank.log()
    assert "srun: error: node2: task 1: Killed" in evidence[1], container.log()
    assert "No such file or directory" in evidence[2], folder.log()
    assert str(folder.results) in evidence[2]
