"""Slurm's text → values."""

from __future__ import annotations

import pytest

from rtdetr_slurm.slurm.environment import submission_environment
from rtdetr_slurm.slurm.parse import (
    first_word,
    parse_exit_code,
    parse_sacct,
    parse_sbatch,
    parse_scontrol_job,
    parse_squeue,
)


def test_squeue() -> None:
    text = (
        "12|RUNNING|None|2026-01-02T03:04:05|node[1-2]|rtdetr-slurm:train-1:train\n"
        "13|PENDING|Resources|N/A||(null)\n"
        "14|FAILED|NonZeroExitCode|2026-01-02T03:04:05|node1|with | a bar\n"
        "garbage\n"
    )
    jobs = parse_squeue(text)
    job, comment = jobs["12"]
    assert (job.state, job.reason, job.nodes) == ("RUNNING", "", "node[1-2]")
    assert comment == "rtdetr-slurm:train-1:train"
    job, comment = jobs["13"]
    assert (job.reason, job.expected_start, job.nodes, comment) == ("Resources", None, "", "")
    assert jobs["14"][1] == "with | a bar"
    assert len(jobs) == 3


def test_sacct_takes_the_last_record_of_a_requeued_job() -> None:
    text = (
        "12|PREEMPTED|0:0|None|node1|\n"
        "12|CANCELLED by 1000|0:15|None|node2|c\n"
        "12.0|COMPLETED|0:0|None|node2|\n"
        "13|OUT_OF_MEMORY|0:125|None|node2|\n"
    )
    jobs = parse_sacct(text)
    job, comment = jobs["12"]
    assert (job.state, job.exit_code, job.signal, comment) == ("CANCELLED", 0, 15, "c")
    assert jobs["13"][0].state == "OUT_OF_MEMORY"
    assert set(jobs) == {"12", "13"}


def test_scontrol() -> None:
    text = (
        "JobId=7 JobName=a b=c UserId=x(1) JobState=FAILED Reason=NonZeroExitCode Dependency=(null)"
        " ExitCode=3:0 StartTime=2026-01-02T03:04:05 NodeList=node[1-2] BatchHost=node1\n"
    )
    job = parse_scontrol_job(text)
    assert job is not None
    assert (job.state, job.exit_code, job.signal, job.nodes) == ("FAILED", 3, 0, "node[1-2]")
    assert parse_scontrol_job("slurm_load_jobs error: Invalid job id specified") is None


@pytest.mark.parametrize(
    ("text", "job_id"),
    [("17\n", "17"), ("17;cluster\n", "17"), ("note\n17\n", "17"), ("", None), ("error 5", None)],
)
def test_sbatch(text: str, job_id: str | None) -> None:
    assert parse_sbatch(text) == job_id


@pytest.mark.parametrize("text", ["CANCELLED by 1000", "CANCELLED+", "CANCELLED", " CANCELLED "])
def test_first_word_of_a_state(text: str) -> None:
    assert first_word(text) == "CANCELLED"


def test_exit_codes() -> None:
    assert parse_exit_code("0:125") == (0, 125)
    assert parse_exit_code("") == (None, None)


def test_what_an_enclosing_job_left_does_not_reach_sbatch() -> None:
    kept = {
        "PATH": "/bin",
        "SLURM_CONF": "/etc/slurm.conf",
        "SLURM_CLUSTERS": "a",
        "SLURMFORGE": "not Slurm's",
        "MY_SLURM_X": "not Slurm's",
    }
    dropped = {
        "SLURM_MEM_PER_CPU": "1",
        "SLURM_CPU_BIND": "quiet",
        "SLURM_EXPORT_ENV": "NONE",
        "SBATCH_PARTITION": "x",
        "SRUN_CPUS_PER_TASK": "4",
        "PMI_RANK": "0",
        "PMI2_X": "0",
        "PMIX_RANK": "0",
        "SLURMD_NODENAME": "n",
        "SALLOC_ACCOUNT": "a",
        "SQUEUE_FORMAT": "%i",
        "SQUEUE_STATES": "R",
        "SACCT_FORMAT": "x",
    }
    assert submission_environment(kept | dropped) == kept
