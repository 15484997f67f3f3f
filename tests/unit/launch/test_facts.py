"""Rank, address, port, and what Slurm says about a job's end."""

from __future__ import annotations

import pytest

from rtdetr_slurm.errors import SiteError
from rtdetr_slurm.launch.outcome import Interruption, Stop
from rtdetr_slurm.launch.slurm_facts import (
    JobFacts,
    judge_warning,
    parse_clock,
    parse_job_facts,
    parse_notice,
)
from rtdetr_slurm.launch.topology import Layout, layout_of_task, master_port, resolve

TASK = {
    "SLURM_PROCID": "1",
    "SLURM_NODEID": "1",
    "SLURM_STEP_NUM_NODES": "2",
    "SLURM_STEP_NUM_TASKS": "2",
}


def test_neighbouring_jobs_and_restarts_get_other_ports() -> None:
    ports = [master_port(job_id, 0) for job_id in range(1000, 13_000)]
    assert len(set(ports)) == len(ports)
    assert all(20_000 <= port < 32_768 for port in ports)
    restarts = [master_port(77, restart) for restart in range(20)]
    assert len(set(restarts)) == 20


def test_rank_and_nodes_are_those_of_the_task() -> None:
    assert layout_of_task(TASK) == Layout(rank=1, nodes=2)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"SLURM_STEP_NUM_TASKS": "4"}, "4 tasks on 2 nodes; exactly one task per node"),
        ({"SLURM_PROCID": "0"}, "task 0 runs on node 1"),
        ({"SLURM_NODEID": ""}, "not inside a Slurm task: SLURM_NODEID not set"),
    ],
)
def test_any_other_layout_is_refused(change: dict[str, str], message: str) -> None:
    with pytest.raises(SiteError, match=message):
        layout_of_task(TASK | change)


def test_resolve() -> None:
    assert resolve("localhost") == "127.0.0.1"
    with pytest.raises(SiteError, match=r"'no\.such\.host\.invalid', does not resolve"):
        resolve("no.such.host.invalid")


def test_job_facts() -> None:
    text = (
        "JobId=8 JobState=RUNNING Reason=None Requeue=1 Restarts=2 RunTime=00:10:00 "
        "TimeLimit=1-00:00:00 PreemptEligibleTime=2026-01-01T00:00:00 PreemptTime=None"
    )
    assert parse_job_facts(text) == JobFacts(
        active=True, restarts=2, preempted=False, seconds_left=86_400 - 600
    )
    facts = parse_job_facts("JobState=COMPLETING Restarts=1 PreemptTime=2026-01-01T00:00:00")
    assert facts == JobFacts(active=False, restarts=1, preempted=True, seconds_left=None)
    assert (
        parse_job_facts("JobState=RUNNING RunTime=00:01:00 TimeLimit=UNLIMITED").seconds_left
        is None
    )


@pytest.mark.parametrize(
    ("text", "seconds"),
    [("00:00:05", 5), ("2-01:00:00", 176_400), ("UNLIMITED", None), ("", None)],
)
def test_clocks(text: str, seconds: float | None) -> None:
    assert parse_clock(text) == seconds


NOTICE = "slurmstepd-node1: error: *** JOB 8 ON node1 CANCELLED AT 2026-11-22T09:00:58{} ***"


@pytest.mark.parametrize(
    ("reason", "why"),
    [
        ("", Interruption.CANCELLED),
        (" DUE TO PREEMPTION", Interruption.PREEMPTED),
        (" DUE TO TIME LIMIT", Interruption.TIMEOUT),
        (" DUE TO JOB REQUEUE", Interruption.PREEMPTED),
        (" DUE TO NODE FAILURE, SEE SLURMCTLD LOG FOR DETAILS", Interruption.PREEMPTED),
    ],
)
def test_slurmstepds_notice(reason: str, why: Interruption) -> None:
    assert parse_notice(["epoch 1", NOTICE.format(reason), "more"], "8") is why


def test_only_the_jobs_own_notice_counts() -> None:
    assert (
        parse_notice([NOTICE.format(""), "*** STEP 9.0 ON node1 CANCELLED AT x ***"], "9") is None
    )
    log = [NOTICE.format(" DUE TO JOB REQUEUE"), NOTICE.format("")]
    assert parse_notice(log, "8") is Interruption.CANCELLED


@pytest.mark.parametrize(
    ("left", "preempted", "why"),
    [
        (100.0, False, Interruption.TIMEOUT),
        (100.0, True, Interruption.PREEMPTED),
        (9000.0, False, Interruption.PREEMPTED),
        (None, False, Interruption.PREEMPTED),
    ],
)
def test_what_a_warning_means(left: float | None, preempted: bool, why: Interruption) -> None:
    facts = JobFacts(active=True, restarts=0, preempted=preempted, seconds_left=left)
    assert judge_warning(facts, lead_s=120) == Stop(why, by_scheduler=False)
