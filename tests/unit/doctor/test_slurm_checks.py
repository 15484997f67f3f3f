"""What the set-up of Slurm means for jobs."""

from __future__ import annotations

from typing import Any

import pytest
from cluster_support import PARTITIONS, cluster

from rtdetr_slurm.doctor.finding import Finding, Outcome
from rtdetr_slurm.doctor.partition_checks import check_partition
from rtdetr_slurm.doctor.slurm_checks import check_slurm
from rtdetr_slurm.site.profile import Site
from rtdetr_slurm.slurm.configuration import Cluster


def site(**keys: Any) -> Site:
    return Site.model_validate({"accelerator": "cuda", "partition": "train", **keys})


def found(alpha: Cluster, profile: Site | None = None) -> dict[str, Finding]:
    findings = list(check_slurm(alpha, profile or site()))
    assert len({finding.id for finding in findings}) == len(findings)
    return {finding.id: finding for finding in findings}


def test_a_cluster_as_it_should_be() -> None:
    assert {finding.outcome for finding in found(cluster()).values()} == {Outcome.OK}


PREEMPTS = "PreemptType = preempt/partition_prio\nPreemptMode = REQUEUE\n"


@pytest.mark.parametrize(
    ("config", "check", "outcome", "said"),
    [
        ("SLURM_VERSION = 20.02.1\n", "version", Outcome.FAILURE, "20.11"),
        ("SLURM_VERSION = 21.08.1\n", "version", Outcome.WARNING, "22.05"),
        ("EnforcePartLimits = NO\n", "part_limits", Outcome.WARNING, "waits for ever"),
        ("MaxArraySize = 0\n", "arrays", Outcome.WARNING, "no job arrays"),
        ("SelectType = select/linear\n", "gpus", Outcome.FAILURE, "gres"),
        ("JobRequeue = 0\n", "requeue", Outcome.OK, "as ours do"),
        (PREEMPTS, "preemption", Outcome.WARNING, "send_user_signal"),
        ("KillWait = 2 sec\n", "times", Outcome.WARNING, "KillWait=30"),
        ("AccountingStorageType = (null)\n", "accounting", Outcome.WARNING, "no accounting"),
        ("AccountingStoreFlags = job_comment\n", "accounting", Outcome.OK, "are kept"),
        (
            "TrackWCKey = Yes\nAccountingStorageEnforce = associations,wckeys\n",
            "wckey",
            Outcome.FAILURE,
            "set wckey",
        ),
        ("JobSubmitPlugins = lua\n", "job_submit", Outcome.OK, "lua"),
    ],
)
def test_what_is_not_as_it_should_be(config: str, check: str, outcome: Outcome, said: str) -> None:
    preempted = PARTITIONS.replace("PreemptMode=OFF", "PreemptMode=REQUEUE")
    finding = found(cluster(config, preempted))[f"slurm.{check}"]
    assert finding.outcome is outcome
    assert said in finding.found + finding.remedy


@pytest.mark.parametrize(
    "asked",
    [
        "PreemptParameters = send_user_signal\n",
        "SlurmctldParameters = a,preempt_send_user_signal\n",
    ],
)
def test_a_preempted_job_is_asked_to_save_and_has_the_time(asked: str) -> None:
    preempted = PARTITIONS.replace("PreemptMode=OFF", "PreemptMode=REQUEUE")
    short = found(cluster(PREEMPTS + asked, preempted))["slurm.preemption"]
    assert short.outcome is Outcome.WARNING
    assert "train 0 s" in short.found
    long = cluster(PREEMPTS + asked, preempted.replace("GraceTime=0", "GraceTime=300"))
    assert found(long)["slurm.preemption"].outcome is Outcome.OK


def test_preemption_elsewhere_is_none_of_this_site() -> None:
    assert found(cluster(PREEMPTS))["slurm.preemption"].outcome is Outcome.OK


@pytest.mark.parametrize("key", ["account", "qos"])
def test_an_account_that_is_not_the_users(key: str) -> None:
    profile = site(roles={"tensorrt": {key: "astro"}})
    lax = found(cluster(), profile)[f"slurm.{key}"]
    assert lax.outcome is Outcome.WARNING
    strict = found(cluster("AccountingStorageEnforce = associations,limits,qos,safe\n"), profile)
    assert strict[f"slurm.{key}"].outcome is Outcome.FAILURE
    assert "astro" in strict[f"slurm.{key}"].found


def test_without_an_answer_of_accounting_rights_are_not_judged() -> None:
    silent = found(cluster(asked=False), site(account="astro"))
    assert "slurm.account" not in silent
    assert silent["slurm.accounting"].outcome is Outcome.WARNING


@pytest.mark.parametrize(
    ("keys", "outcome", "said"),
    [
        ({}, Outcome.OK, "1 of 3 nodes in use or free, 4 GPUs each, at most 1440 min, types: a100"),
        ({"time": 2000}, Outcome.FAILURE, "at most 1440 min"),
        ({"gpu": {"type": "h100"}}, Outcome.FAILURE, "a100"),
        ({"partition": "gpu"}, Outcome.FAILURE, "train, infer"),
        ({"partition": "infer"}, Outcome.FAILURE, "down"),
        ({"partition": None}, Outcome.OK, "up"),
    ],
)
def test_partitions(keys: dict[str, Any], outcome: Outcome, said: str) -> None:
    profile = site(**keys)
    role = profile.merged_role("train")
    finding = check_partition(cluster(), role.partition, role, profile)
    assert finding.outcome is outcome
    assert said in finding.found + finding.remedy


@pytest.mark.parametrize(
    ("partitions", "nodes", "keys", "said"),
    [
        (
            PARTITIONS.replace("AllowAccounts=ALL", "AllowAccounts=video"),
            None,
            {"account": "vision"},
            "video",
        ),
        (PARTITIONS, "NodeName=node1 State=DOWN Partitions=train\n", {}, "sinfo -R"),
        (
            PARTITIONS,
            "NodeName=node1 State=IDLE Partitions=train Gres=(null)\n",
            {},
            "manages no GPUs",
        ),
    ],
)
def test_partitions_that_take_no_such_job(
    partitions: str, nodes: str | None, keys: dict[str, Any], said: str
) -> None:
    profile = site(**keys)
    alpha = cluster(partitions=partitions, **({} if nodes is None else {"nodes": nodes}))
    finding = check_partition(alpha, "train", profile.merged_role("train"), profile)
    assert finding.outcome is Outcome.FAILURE
    assert said in finding.found + finding.remedy


def test_mig_slices_are_told() -> None:
    nodes = "NodeName=n State=IDLE Partitions=train Gres=gpu:a100:4,gpu:a100_1g.5gb:7\n"
    profile = site()
    finding = check_partition(cluster(nodes=nodes), "train", profile.merged_role("train"), profile)
    assert finding.outcome is Outcome.WARNING
    assert "a100_1g.5gb" in finding.found
