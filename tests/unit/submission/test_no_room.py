"""A disk that is full at any moment of a submission or a cancellation."""

from __future__ import annotations

import signal
import subprocess
from dataclasses import replace
from pathlib import Path

import pytest
from launch_support import EVALUATE, STAGE, local_stage, make_run
from os_support import files_of_at_most
from slurm_support import FakeSlurm, queue_line, submitted

from rtdetr_slurm.errors import SiteError
from rtdetr_slurm.plan.model import Dependency, Origin
from rtdetr_slurm.records import BadRecord
from rtdetr_slurm.runs.run import Run
from rtdetr_slurm.submission.cancel import cancel_run
from rtdetr_slurm.submission.submit import submit_run

FILL = "prlimit --pid $PPID --fsize=10:"
"""As if somebody else had filled the disk: the record takes no further line."""
SCRIPT_FITS = 5000


def test_what_cannot_be_written_down_is_not_sent(slurm: FakeSlurm, run: Run) -> None:
    with files_of_at_most(10), pytest.raises(SiteError) as error:
        submit_run(run)
    assert str(error.value).startswith(f"{run.path}/results/train/claim.json")
    assert "File too large" in str(error.value)
    assert str(error.value).endswith(f"nothing is queued (run folder: {run.path})")
    assert slurm.calls("sbatch") == []


def test_a_script_that_cannot_be_written_is_not_sent(slurm: FakeSlurm, run: Run) -> None:
    with files_of_at_most(600), pytest.raises(SiteError, match="nothing is queued"):
        submit_run(run)
    assert slurm.calls("sbatch") == []
    assert not (run.job_dir("train") / "job.sh").exists()


def test_a_job_that_cannot_be_written_down_is_found_and_cancelled(
    slurm: FakeSlurm, tmp_path: Path
) -> None:
    run = make_run(tmp_path / "runs", STAGE, EVALUATE)
    slurm.answer("sbatch", f"{FILL}; echo 42")
    slurm.answer("squeue", f"echo '{queue_line(run, '42')}'")
    with files_of_at_most(SCRIPT_FITS), pytest.raises(SiteError) as error:
        submit_run(run)
    assert "what was queued before has been cancelled: train: job 42" in str(error.value)
    assert len(slurm.calls("sbatch")) == 1
    assert slurm.calls("scancel") == ["42"]


def test_what_stays_queued_is_named(slurm: FakeSlurm, tmp_path: Path) -> None:
    run = make_run(tmp_path / "runs", STAGE, EVALUATE)
    slurm.answer("sbatch", f"{FILL}; echo 42")
    slurm.answer("squeue", f"echo '{queue_line(run, '42')}'")
    slurm.answer("scancel", "echo 'scancel: error: no' >&2; exit 1")
    with files_of_at_most(SCRIPT_FITS), pytest.raises(SiteError) as error:
        submit_run(run)
    assert r"what was queued before (train: job 42) could not be cancelled" in str(error.value)


def test_a_runner_that_cannot_be_written_down_is_ended(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = make_run(tmp_path / "runs", local_stage(tmp_path / "results"))
    begun: list[subprocess.Popen[bytes]] = []

    def start(run: Run, stage: str, first: int) -> str:
        begun.append(subprocess.Popen(["sleep", "60"]))
        subprocess.run(["sh", "-c", FILL], check=True)
        return str(begun[0].pid)

    monkeypatch.setattr("rtdetr_slurm.submission.backends.start_runner", start)
    with files_of_at_most(SCRIPT_FITS), pytest.raises(SiteError, match="has been cancelled: train"):
        submit_run(run)
    assert begun[0].wait(timeout=10) == -signal.SIGTERM


def test_a_full_disk_keeps_no_job_from_being_cancelled(slurm: FakeSlurm, run: Run) -> None:
    submitted(run)
    slurm.answer("squeue", f"echo '{queue_line(run, '42', 'RUNNING')}'")
    with files_of_at_most(250):
        done = cancel_run(run)
    assert slurm.calls("scancel") == ["42"]
    assert done.jobs == {"train": "42"}
    assert f"{run.path}/events/" in done.unwritten[0]
    assert "File too large; the limit on the size of files" in done.unwritten[0]


def test_a_parent_that_becomes_unreadable_takes_all_back(slurm: FakeSlurm, tmp_path: Path) -> None:
    """The first stage is queued by then; what it was, and why it is gone, is told."""
    parent = make_run(tmp_path / "runs", STAGE, run_id="train-20260101-000000-aaaa")
    on = Dependency(Origin("train", str(parent.path)))
    last = replace(EVALUATE, depends_on=(on,), results_dir=str(tmp_path / "e"))
    run = make_run(tmp_path / "runs", replace(STAGE, results_dir=str(tmp_path / "t")), last)
    slurm.answer("sbatch", f"echo '{{' > {parent.path}/run.json; echo 42")
    slurm.answer("squeue", f"echo '{queue_line(run, '42')}'")
    with pytest.raises(BadRecord) as error:
        submit_run(run)
    assert f"{parent.path}/run.json: this is not JSON" in str(error.value)
    assert "what was queued before has been cancelled: train: job 42" in str(error.value)
    assert slurm.calls("scancel") == ["42"]
