"""What the records of a probe job mean."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from cluster_support import NODES, PARTITIONS, cluster

from rtdetr_slurm import __version__
from rtdetr_slurm.doctor.examine import obstacle
from rtdetr_slurm.doctor.finding import Finding, Outcome, failure
from rtdetr_slurm.doctor.probe import Probe
from rtdetr_slurm.doctor.probe_checks import check_probe, kept_settings
from rtdetr_slurm.doctor.probe_plan import plan_probes, probe_stage
from rtdetr_slurm.runs.probe import End, NodeFacts, Reduced, Trial
from rtdetr_slurm.site.profile import Site
from rtdetr_slurm.slurm.answers import JobInfo, Queued

IMAGE = {"path": "/images/rtdetr.sif"}
SITE = Site.model_validate({"accelerator": "cuda", "partition": "train", "image": IMAGE})
TOKEN = "rtdetr-slurm:.doctor-1"


def site(**keys: Any) -> Site:
    base = SITE.model_dump(exclude_unset=True)
    return Site.model_validate({**base, **keys})


def node(rank: int = 0, **facts: Any) -> NodeFacts:
    known: dict[str, Any] = {
        "rank": rank,
        "host": f"node{rank + 1}",
        "umask": "0022",
        "shm_free": 2**36,
        "scratch": "/tmp",
        "scratch_free": 2**36,
        "devices": "0,1",
        "physical": "0,1",
        "present": 4,
        "usable": 2,
        "driver": "550.54.15",
        "apptainer": "apptainer version 1.3.1",
        "setuid": False,
        "userns": "",
        "interface": "ib0",
        "s3_problem": None,
        "problems": {},
    }
    return NodeFacts(**{**known, **facts})  # type: ignore[typeddict-item]


def reduced(ranks: int = 2) -> Reduced:
    return {
        "version": __version__,
        "torch": "2.15",
        "backend": "nccl 2.27",
        "ranks": ranks,
        "join_s": 3.0,
        "bus_gb_s": 12.5,
        "latency_us": 20.0,
        "devices": ["NVIDIA A100 80 GiB"] * ranks,
    }


def trial(nodes: int, *, works: bool = True, met: bool = True, **settings: str) -> Trial:
    return {
        "nodes": nodes,
        "settings": settings,
        "met": met,
        "seconds": 9.0,
        "evidence": "" if works else "rank 2: timed out",
        "reduced": reduced(2 * nodes) if works else None,
    }


def probe(*trials: Trial, nodes: tuple[NodeFacts, ...] = (node(0), node(1)), **facts: Any) -> Probe:
    """A probe that went well, but for `facts`."""
    profile = facts.pop("site", SITE)
    [plan, *_] = plan_probes(profile, cluster(nodes=NODES.replace("+DRAIN", "")))
    known: dict[str, Any] = {
        "token": TOKEN,
        "queued": Queued("7"),
        "started_after_s": 4.0,
        "seen_after_s": 0.5,
        "hello": {"time": 0.0, "host": "node1", "python": "", "requeue": True, "comment": TOKEN},
        "nodes": nodes,
        "end": end(*(trials or (trial(1), trial(2)))),
        "over": True,
    }
    return Probe(plan, profile, Path("/runs/.doctor-1"), **{**known, **facts})


def end(*trials: Trial, seen: float | None = 0.3, problem: str = "") -> End:
    return {"seen_after_s": seen, "trials": list(trials), "problem": problem}


def found(examined: Probe) -> dict[str, Finding]:
    findings = list(check_probe(examined, {}))
    assert {one.where for one in findings} == {"train"}
    return {one.id: one for one in findings}


def test_a_node_as_it_should_be() -> None:
    findings = found(probe())
    assert {one.outcome for one in findings.values()} == {Outcome.OK}
    assert "12.50 GB/s" in findings["allreduce.two_nodes"].found
    assert "4 ranks" in findings["allreduce.two_nodes"].found
    assert "0.8 s" in findings["probe.run_root"].found


@pytest.mark.parametrize(
    ("facts", "said"),
    [
        ({"devices": "0,1", "physical": "2,3"}, "renumbered from 2,3"),
        ({"devices": "2,3", "physical": "2,3", "usable": 4}, "all 4 devices can be opened"),
        ({"usable": 2}, "its own 2 of 4"),
        ({"present": 2}, "all 2 devices"),
    ],
)
def test_whether_gpus_are_renumbered(facts: dict[str, Any], said: str) -> None:
    assert said in found(probe(nodes=(node(**facts),)))["node.gpus"].found


@pytest.mark.parametrize(
    ("facts", "check", "outcome", "said"),
    [
        ({"apptainer": "apptainer version 1.0.3"}, "apptainer", Outcome.FAILURE, "1.1"),
        ({"apptainer": None}, "apptainer", Outcome.FAILURE, "version"),
        ({"apptainer": "singularity-ce version 4.1"}, "apptainer", Outcome.WARNING, "Apptainer"),
        ({"userns": "x is 0"}, "apptainer", Outcome.FAILURE, "apptainer-suid"),
        ({"userns": "x is 0", "setuid": True}, "apptainer", Outcome.OK, "setuid"),
        ({"shm_free": 2**26}, "shm", Outcome.WARNING, "0.1 GiB"),
        ({"scratch_free": 2**30}, "scratch", Outcome.WARNING, "1 GiB"),
        ({"problems": {"node.gpus": "too few; ask"}}, "gpus", Outcome.FAILURE, "too few"),
        ({"problems": {"node.image": "another one"}}, "image", Outcome.FAILURE, "every node sees"),
    ],
)
def test_what_is_wrong_with_one_node(
    facts: dict[str, Any], check: str, outcome: Outcome, said: str
) -> None:
    findings = [
        one
        for one in check_probe(probe(nodes=(node(0), node(1, **facts))), {})
        if one.id == f"node.{check}" and one.found.startswith("node2: ")
    ]
    [finding] = findings
    assert finding.outcome is outcome
    assert said in finding.found + finding.remedy


@pytest.mark.parametrize(
    ("facts", "check", "outcome", "said"),
    [
        ({"refused": "sbatch refused the job: QOSMaxGRES"}, "job", Outcome.FAILURE, "QOSMaxGRES"),
        ({"trace": "run_root /r is not there on node1"}, "job", Outcome.FAILURE, "not there"),
        ({"end": None, "evidence": "exit code 1"}, "job", Outcome.FAILURE, "exit code 1"),
        ({"end": end(trial(1), seen=None)}, "run_root", Outcome.FAILURE, "actimeo"),
        ({"seen_after_s": 40.0}, "run_root", Outcome.WARNING, "40.3 s"),
        ({"seen_after_s": -99.0, "end": end(seen=100.0)}, "clock", Outcome.WARNING, "99 s"),
        ({"end": end(problem="srun: error")}, "step", Outcome.FAILURE, "srun: error"),
        ({"blocked": "there is no image"}, "job", Outcome.NOT_CHECKED, "no image"),
    ],
)
def test_what_is_wrong_with_the_job(
    facts: dict[str, Any], check: str, outcome: Outcome, said: str
) -> None:
    finding = found(probe(**facts))[f"probe.{check}"]
    assert finding.outcome is outcome
    assert said in finding.found + finding.remedy


def test_a_job_that_waits_for_too_long_is_no_failure() -> None:
    job = JobInfo("7", "PENDING", reason="Resources", expected_start="2026-11-27T01:02:03")
    finding = found(probe(gave_up=True, job=job, hello=None, end=None))["probe.job"]
    assert finding.outcome is Outcome.WARNING
    assert "(Resources), expected to start 2026-11-27T01:02:03" in finding.found


@pytest.mark.parametrize(
    ("change", "keys", "outcome"),
    [
        ({"requeue": False}, {}, Outcome.FAILURE),
        ({"requeue": False}, {"requeue": False}, Outcome.OK),
        ({"comment": "by the site"}, {}, Outcome.FAILURE),
    ],
)
def test_a_plugin_that_changes_jobs(
    change: dict[str, Any], keys: dict[str, Any], outcome: Outcome
) -> None:
    hello = {**(probe().hello or {}), **change}
    assert found(probe(hello=hello, site=site(**keys)))["probe.options"].outcome is outcome


def test_settings_that_help_are_told_and_kept() -> None:
    helped = probe(
        trial(1),
        trial(2, works=False),
        trial(2, NCCL_SOCKET_IFNAME="ib0", GLOO_SOCKET_IFNAME="ib0"),
    )
    findings = found(helped)
    assert findings["allreduce.one_node"].outcome is Outcome.OK
    assert findings["allreduce.two_nodes"].outcome is Outcome.WARNING
    assert "NCCL_SOCKET_IFNAME=ib0" in findings["allreduce.two_nodes"].found
    assert "timed out" in findings["allreduce.two_nodes"].found
    assert kept_settings([helped]) == {"NCCL_SOCKET_IFNAME": "ib0", "GLOO_SOCKET_IFNAME": "ib0"}


def test_settings_that_do_not_help_are_not_kept() -> None:
    hopeless = probe(trial(1), trial(2, works=False), trial(2, works=False, NCCL_IB_DISABLE="1"))
    finding = found(hopeless)["allreduce.two_nodes"]
    assert finding.outcome is Outcome.FAILURE
    assert "NCCL_IB_DISABLE=1" in finding.found
    assert kept_settings([hopeless]) == {}


def test_a_container_that_does_not_start_is_one_failure() -> None:
    findings = found(probe(trial(1, works=False, met=False)))
    bad = [one.id for one in findings.values() if one.outcome is Outcome.FAILURE]
    assert bad == ["container"]


def test_a_container_that_starts_the_second_time_is_no_failure() -> None:
    missed = trial(2, works=False, met=False)
    findings = found(probe(trial(1), missed, trial(2)))
    assert findings["container"].outcome is Outcome.WARNING
    assert "entered in 2 of 3 attempts" in findings["container"].found
    assert findings["allreduce.two_nodes"].outcome is Outcome.OK
    findings = found(probe(trial(1), missed, missed))
    assert findings["container"].outcome is Outcome.FAILURE


def test_the_image_of_another_version_is_told() -> None:
    old = trial(1)
    assert old["reduced"] is not None
    old["reduced"]["version"] = "0.0.1"
    assert found(probe(old))["container"].outcome is Outcome.WARNING


def test_the_tensorrt_of_a_deploying_role_is_told() -> None:
    for there, outcome in ((["tensorrt 10.13.2"], Outcome.OK), ([], Outcome.WARNING)):
        one = trial(1)
        assert one["reduced"] is not None
        one["reduced"]["tensorrt"] = there
        sent = probe(one)
        sent.plan = replace(sent.plan, role="tensorrt")
        finding = found(sent)["container"]
        assert finding.outcome is outcome
        assert (there[0] if there else "neither tensorrt nor") in finding.found


# --- what is probed --------------------------------------------------------------------------
def test_a_probe_for_each_partition_and_image() -> None:
    alpha = cluster(nodes=NODES.replace("+DRAIN", ""))
    both = site(roles={"tensorrt": {"partition": "infer"}})
    shapes = [(p.where, p.role, p.nodes, p.gpus, p.enters) for p in plan_probes(both, alpha)]
    assert shapes == [("train", "train", 2, 2, True), ("infer", "tensorrt", 1, 1, True)]
    assert [p.where for p in plan_probes(site(), alpha)] == ["train"]
    [only] = plan_probes(both, alpha, "infer")
    assert (only.partition, only.role, only.nodes) == ("infer", "tensorrt", 1)
    [other] = plan_probes(site(), alpha, "infer")
    assert (other.partition, other.role) == ("infer", "train")


@pytest.mark.parametrize(
    ("nodes", "keys", "shape"),
    [
        (NODES, {}, (1, 2)),  # the others are out
        (NODES.replace("gpu:a100:4", "gpu:a100:1").replace("+DRAIN", ""), {}, (2, 1)),
        (NODES.replace("+DRAIN", ""), {"limits": {"max_nodes": 1}}, (1, 2)),
        (NODES.replace("+DRAIN", ""), {"limits": {"max_gpus_per_node": 1}}, (2, 1)),
        (NODES.replace("+DRAIN", ""), {"gpu": {"request": "none"}}, (2, 1)),
        (NODES.replace("+DRAIN", ""), {"gpu": {"request": "none"}, "accelerator": "cpu"}, (2, 2)),
    ],
)
def test_no_more_is_asked_for_than_there_is(
    nodes: str, keys: dict[str, Any], shape: tuple[int, int]
) -> None:
    [plan] = plan_probes(site(**keys), cluster(nodes=nodes))
    assert (plan.nodes, plan.gpus) == shape


def test_a_probe_asks_for_little_of_a_node(tmp_path: Path) -> None:
    profile = site(cpus_per_gpu=16, mem_gb=240.0, account="vision", qos="high")
    [plan] = plan_probes(profile, cluster(partitions=PARTITIONS))
    stage = probe_stage(profile, plan, tmp_path)
    assert (stage.resources.cpus_per_task, stage.resources.mem_gb) == (8, 16.0)
    assert (stage.resources.account, stage.resources.qos) == ("vision", "high")
    assert stage.launch.requeue
    assert stage.container is not None
    assert str(tmp_path) in [bind.source for bind in stage.container.binds]


def test_what_is_known_to_fail_is_not_tried() -> None:
    [plan] = plan_probes(SITE, cluster())
    image = failure("site.image", "container image /images/rtdetr.sif: no such file", "build it")
    other = failure("site.image", "container image /images/trt.sif: no such file", "build it")
    down = failure("slurm.partition", "down", "wait", "train")
    elsewhere = failure("slurm.partition", "down", "wait", "infer")
    assert obstacle(SITE, [image], plan)
    assert obstacle(SITE, [down], plan)
    assert not obstacle(SITE, [other, elsewhere], plan)
