"""Slurm's text → values."""

from __future__ import annotations

import pytest

from rtdetr_slurm.contract import FailureClass
from rtdetr_slurm.slurm.answers import Listing, OwnFacts, Queued
from rtdetr_slurm.slurm.environment import (
    is_secret,
    job_environment,
    literal_secrets,
    submission_environment,
)
from rtdetr_slurm.slurm.parse import (
    first_word,
    parse_exit_code,
    parse_notice,
    parse_own_facts,
    parse_sacct,
    parse_sbatch,
    parse_scontrol_jobs,
    parse_squeue,
)


def test_squeue() -> None:
    text = (
        "12|RUNNING|None|2026-01-02T03:04:05|node[1-2]|rtdetr-slurm:train-1:train|\n"
        "13|PENDING|Resources|N/A||(null)|\n"
        "14|FAILED|NonZeroExitCode|2026-01-02T03:04:05|node1|with | a bar|\n"
        "garbage\n"
    )
    jobs = parse_squeue(text).jobs
    job = jobs["12"]
    assert (job.state, job.reason, job.nodes) == ("RUNNING", "", "node[1-2]")
    assert job.comment == "rtdetr-slurm:train-1:train"
    job = jobs["13"]
    assert (job.reason, job.expected_start, job.nodes, job.comment) == ("Resources", None, "", "")
    assert jobs["14"].comment == "with | a bar"
    assert len(jobs) == 3


def test_sacct_takes_the_last_record_of_a_requeued_job() -> None:
    text = (
        "12|PREEMPTED|0:0|None|node1|2026-01-02T03:04:05||/r\n"
        "12|CANCELLED by 1000|0:15|None|node2|2026-01-03T03:04:05|c|/a | b\n"
        "12.0|COMPLETED|0:0|None|node2|Unknown||/r\n"
        "13|OUT_OF_MEMORY|0:125|None|node2|Unknown||/r\n"
    )
    jobs = parse_sacct(text)
    job = jobs["12"]
    assert (job.state, job.exit_code, job.signal, job.comment) == ("CANCELLED", 0, 15, "c")
    assert (job.work_dir, job.ended) == ("/a | b", "2026-01-03T03:04:05")
    assert jobs["13"].ended is None
    assert jobs["13"].state == "OUT_OF_MEMORY"
    assert set(jobs) == {"12", "13"}


def test_scontrol() -> None:
    text = (
        "JobId=7 JobName=a b=c UserId=x(1) JobState=FAILED Reason=NonZeroExitCode Dependency=(null)"
        " ExitCode=3:0 StartTime=2026-01-02T03:04:05 NodeList=node[1-2] BatchHost=node1\n"
    )
    job = parse_scontrol_jobs(text)["7"]
    assert (job.state, job.exit_code, job.signal, job.nodes) == ("FAILED", 3, 0, "node[1-2]")
    assert parse_scontrol_jobs("slurm_load_jobs error: Invalid job id specified") == {}


@pytest.mark.parametrize(
    ("text", "answer"),
    [
        ("17\n", Queued("17")),
        ("17;east\n", Queued("17", "east")),
        ("note\n17\n", Queued("17")),
        ("", None),
        ("error 5", None),
        ("17", None),  # cut off: of what number is not known
        ("<html>17</html>\n", None),
    ],
)
def test_sbatch(text: str, answer: Queued | None) -> None:
    assert parse_sbatch(text) == answer


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
        "SLURM_JWT": "token",
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
        "CUDA_VISIBLE_DEVICES": "2",  # of the job around this one, and of its torchrun
        "RANK": "1",
        "LOCAL_RANK": "1",
        "RTDETR_CLAIM": "c",
        "TORCHELASTIC_RUN_ID": "1",
        "HF_TOKEN": "secret",
        "AWS_SECRET_ACCESS_KEY": "secret",
        "PGPASSWORD": "secret",
    }
    assert submission_environment(kept | dropped) == kept
    assert submission_environment(kept | {"MY_LOGIN": "secret"}, ["MY_LOGIN"]) == kept
    here = {"TMPDIR": "/tmp/job.7"}
    assert submission_environment(here) == here
    assert submission_environment(here | {"SLURM_JOB_ID": "7"}) == {}
    del kept["SLURM_CLUSTERS"]
    assert job_environment(kept | dropped | {"SLURM_CLUSTERS": "a,b"}) == kept


@pytest.mark.parametrize(
    ("name", "secret"),
    [
        ("WANDB_API_KEY", True),
        ("NGC_CLI_API_KEY", True),
        ("AWS_SESSION_TOKEN", True),
        ("CLEARML_API_SECRET_KEY", True),
        ("apikey", True),
        ("TOKENIZERS_PARALLELISM", False),
        ("GOOGLE_APPLICATION_CREDENTIALS", False),  # the path of a file
        ("SSH_AUTH_SOCK", False),
        ("LESSKEY", False),
    ],
)
def test_a_secret_is_known_by_its_name(name: str, secret: bool) -> None:
    assert is_secret(name) is secret


@pytest.mark.parametrize(
    ("line", "found"),
    [
        ("export A_TOKEN=abc B_TOKEN='x y' C=1", ["A_TOKEN", "B_TOKEN"]),
        ('A_TOKEN="abc" command', ["A_TOKEN"]),
        ("export A_TOKEN=$(cat file) B_TOKEN=\"$A\" C_TOKEN=`x` D_TOKEN= E_TOKEN=''", []),
        ("unset A_TOKEN; module load a/b=c", []),
    ],
)
def test_secrets_written_out_in_shell(line: str, found: list[str]) -> None:
    assert [*literal_secrets(line)] == found


@pytest.mark.parametrize(
    "damage",
    ["<html>", "<html>\n", "5|PENDING|None", "x|PENDING|None|N/A||c|\n", "5|PENDING|None|N/A||c|"],
)
def test_a_queue_that_cannot_be_read_is_no_proof(damage: str) -> None:
    whole = "CLUSTER: east\n4|RUNNING|None|N/A|node1|c|\n\n"
    assert parse_squeue("") == Listing({})
    assert parse_squeue(whole).unreadable is None
    listing = parse_squeue(whole + damage)
    assert (set(listing.jobs), listing.unreadable) == ({"4"}, damage.strip())
    assert set(parse_squeue(f"{damage}\n{whole}").jobs) >= {"4"}


@pytest.mark.parametrize("comment", ["two\nlines", "a\n\n b", "page\x0c\u2028\x1c", "5|RUN|-"])
def test_what_others_write_into_comments_hides_no_job(comment: str) -> None:
    listing = parse_squeue(f"4|RUNNING|None|N/A|n|{comment}|\n6|PENDING|None|N/A||c|\n")
    assert (set(listing.jobs), listing.unreadable) == ({"4", "6"}, None)


# --- arrays ------------------------------------------------------------------------------------
def test_pending_tasks_of_an_array_are_taken_apart() -> None:
    text = "20_[2-4,7%2]|PENDING|Resources|N/A||c|\n20_1|RUNNING|None|N/A|node1|c|\n"
    jobs = parse_squeue(text).jobs
    assert {i: job.state for i, job in jobs.items()} == {
        "20_1": "RUNNING",
        "20_2": "PENDING",
        "20_3": "PENDING",
        "20_4": "PENDING",
        "20_7": "PENDING",
    }
    assert set(parse_sacct("20_[2-3]|PENDING|0:0||||c|/r\n20_1|COMPLETED|0:0||n||c|/r\n")) == {
        "20_1",
        "20_2",
        "20_3",
    }


def test_a_task_is_known_by_array_and_index_and_not_by_its_own_number() -> None:
    text = (
        "JobId=23 ArrayJobId=20 ArrayTaskId=1 JobState=RUNNING Reason=None ExitCode=0:0\n"
        "JobId=20 ArrayJobId=20 ArrayTaskId=2-3%1 JobState=PENDING Reason=JobArrayTaskLimit\n"
    )
    jobs = parse_scontrol_jobs(text)
    assert set(jobs) == {"20_1", "20_2", "20_3"}
    assert jobs["20_3"].reason == "JobArrayTaskLimit"


# --- what a job learns about its own end -------------------------------------------------------
def test_facts_about_oneself() -> None:
    text = (
        "JobId=8 JobState=RUNNING Reason=None Requeue=1 Restarts=2 RunTime=00:10:00 "
        "TimeLimit=1-00:00:00 PreemptEligibleTime=2026-01-01T00:00:00 PreemptTime=None"
    )
    assert parse_own_facts(text) == OwnFacts(
        running=True, restarts=2, preempted=False, seconds_left=86_400 - 600
    )
    with pytest.raises(ValueError, match="no job's state in the answer '<html>'"):
        parse_own_facts("<html>")
    facts = parse_own_facts("JobState=COMPLETING Restarts=1 PreemptTime=2026-01-01T00:00:00")
    assert facts == OwnFacts(running=False, restarts=1, preempted=True, seconds_left=None)
    assert (
        parse_own_facts("JobState=RUNNING RunTime=00:01:00 TimeLimit=UNLIMITED").seconds_left
        is None
    )


NOTICE = "slurmstepd-node1: error: *** JOB 8 ON node1 CANCELLED AT 2026-11-22T09:00:58{} ***"


@pytest.mark.parametrize(
    ("reason", "why"),
    [
        ("", FailureClass.CANCELLED),
        (" DUE TO PREEMPTION", FailureClass.PREEMPTED),
        (" DUE TO TIME LIMIT", FailureClass.TIMEOUT),
        (" DUE TO JOB REQUEUE", FailureClass.PREEMPTED),
        (" DUE TO NODE FAILURE, SEE SLURMCTLD LOG FOR DETAILS", FailureClass.INFRA),
    ],
)
def test_slurmstepds_notice(reason: str, why: FailureClass) -> None:
    assert parse_notice(["epoch 1", NOTICE.format(reason), "more"], "8") is why


def test_only_the_jobs_own_notice_counts() -> None:
    assert (
        parse_notice([NOTICE.format(""), "*** STEP 9.0 ON node1 CANCELLED AT x ***"], "9") is None
    )
    log = [NOTICE.format(" DUE TO JOB REQUEUE"), NOTICE.format("")]
    assert parse_notice(log, "8") is FailureClass.CANCELLED
