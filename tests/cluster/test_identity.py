"""A job is known by its token: what Slurm really says of it, and what is done about it."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

from rtdetr_slurm.runs.events import read_events

from .harness import jobs, slurm
from .harness.cli import Cli, Submitted, held_queue, submit, train_spec, write_spec
from .harness.data import Dataset

pytestmark = pytest.mark.cluster


def wrapped(cli: Cli, folder: Path, body: str) -> Cli:
    """The same command line where `sbatch` is a wrapper, as on many sites."""
    real = subprocess.run(
        ["which", "sbatch"], env=cli.env, capture_output=True, text=True, check=True
    ).stdout.strip()
    folder.mkdir()
    (folder / "sbatch").write_text(f'#!/bin/bash\nreal() {{ {real} "$@"; }}\n{body}\n')
    (folder / "sbatch").chmod(0o755)
    return Cli({**cli.env, "PATH": f"{folder}{os.pathsep}{cli.env['PATH']}"}, cli.folder)


def only_run(run_root: Path, before: set[Path]) -> Path:
    [made] = set(run_root.iterdir()) - before
    return made


def test_jobs_behind_lost_answers(
    cli: Cli, cluster: slurm.Slurm, dataset: Dataset, tmp_path: Path, run_root: Path
) -> None:
    spec = write_spec(cli.folder / "train.yaml", train_spec(dataset))
    with held_queue(cluster):
        # Killed after it has queued the job: adopted.
        killed = wrapped(cli, tmp_path / "a", 'real "$@" > /dev/null; kill -9 $$')
        adopted = submit(killed, spec)
        assert jobs.state(cluster, adopted.job) == "PENDING"
        # submit itself is killed while sbatch is at work: found by its token.
        before = set(run_root.iterdir())
        lost = wrapped(cli, tmp_path / "b", 'real "$@" > /dev/null; kill -9 $PPID')
        lost("submit", spec, "--again", code=-9)
        folder = only_run(run_root, before)
        assert [e["event"] for e in read_events(folder / "events")] == ["submitting"]
        [stage] = cli.json("status", folder)["stages"]
        assert stage["state"] == "queued"
        assert f"job {stage['job_id']}" in cli("cancel", folder).stderr
        assert jobs.state(cluster, stage["job_id"]) == "CANCELLED"
        # The job appears only after all looks: it ends as soon as it starts.
        before = set(run_root.iterdir())
        none = wrapped(cli, tmp_path / "c", "kill -9 $PPID")
        none("submit", spec, "--again", code=-9)
        folder = only_run(run_root, before)
        assert "is not known" in cli("cancel", folder, code=3).stderr
        script = folder / "jobs" / "train" / "job.sh"
        late = cluster.command("sbatch", "--parsable", script).strip()
        # Numbers that start anew: the record of one run names the job of another.
        events = next((adopted.folder / "events").iterdir())
        events.write_text(events.read_text().replace(f'"{adopted.job}"', f'"{late}"'))
        assert adopted.stage()["job_id"] == adopted.job
        cluster.command("scontrol", "update", f"JobId={adopted.job}", "Comment=another")
        assert adopted.stage()["state"] == "unknown"
        assert "has no job" in cli("cancel", adopted.folder).stderr
        assert jobs.state(cluster, late) == jobs.state(cluster, adopted.job) == "PENDING"
        cluster.command("scancel", adopted.job)
    assert jobs.wait(cluster, late) == "FAILED"
    run = Submitted(cli, folder, late, "train")
    assert run.stage()["state"] == "cancelled"
    assert "starts srun" not in run.log()
