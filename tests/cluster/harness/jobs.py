"""Batch jobs for tests: hand one in, wait for what becomes of it."""

from __future__ import annotations

import time
from pathlib import Path

from .machine import HarnessError
from .slurm import Slurm

ENDED = frozenset(
    {
        "BOOT_FAIL",
        "CANCELLED",
        "COMPLETED",
        "DEADLINE",
        "FAILED",
        "NODE_FAIL",
        "OUT_OF_MEMORY",
        "PREEMPTED",
        "TIMEOUT",
    }
)


def submit(cluster: Slurm, folder: Path, script: str, *options: str) -> str:
    """Hand in a bash script whose output goes to `folder`/<job id>.out; returns the job id."""
    path = folder / "job.sh"
    path.write_text(f"#!/bin/bash\n{script}")
    out = f"--output={folder}/%j.out"
    return cluster.command("sbatch", "--parsable", f"--chdir={folder}", out, *options, path).strip()


def state(cluster: Slurm, job: str) -> str:
    """The job's state as slurmctld has it."""
    return cluster.command(
        "squeue", "--noheader", "--states=all", f"--jobs={job}", "--format=%T"
    ).strip()


def wait(cluster: Slurm, job: str, *, until: frozenset[str] = ENDED, seconds: float = 60) -> str:
    """Wait until the job's state is one of `until`; returns that state.

    Raises:
        HarnessError: it is not within `seconds`; carries all that Slurm says of the job.
    """
    deadline = time.monotonic() + seconds
    while (now := state(cluster, job)) not in until:
        if time.monotonic() > deadline:
            details = cluster.command("scontrol", "show", "job", job)
            raise HarnessError(f"job {job} is {now} after {seconds:.0f} s:\n{details}")
        time.sleep(0.2)
    return now


def accounted(cluster: Slurm, job: str, fields: str, *, seconds: float = 20) -> list[list[str]]:
    """The job's records in sacct, one list of `fields` each, once its end has arrived there.

    Raises:
        HarnessError: the database has no end of this job within `seconds`.
    """
    deadline = time.monotonic() + seconds
    while True:
        listed = cluster.command(
            "sacct", "--noheader", "--parsable2", f"--jobs={job}", f"--format=End,{fields}"
        )
        records = [line.split("|") for line in listed.splitlines()]
        if records and all(record[0] != "Unknown" for record in records):
            return [record[1:] for record in records]
        if time.monotonic() > deadline:
            raise HarnessError(f"sacct has no end of job {job} after {seconds:.0f} s:\n{listed}")
        time.sleep(0.2)


def output(folder: Path, job: str) -> str:
    """What the job wrote."""
    return (folder / f"{job}.out").read_text()
