"""What scontrol and sacctmgr say about a cluster."""

from __future__ import annotations

import pytest
from cluster_support import cluster

from rtdetr_slurm.slurm.configuration import Association, parse_config, parse_gpus


def test_settings_of_all_sections() -> None:
    alpha = cluster()
    assert alpha.setting("ClusterName") == "alpha"
    assert alpha.setting("SlurmctldHost[0]") == "head(127.0.0.1)"
    assert alpha.setting("ConstrainDevices") == "yes"
    assert alpha.setting("AuthInfo") == "socket=/run/munge/socket,cred_expire=10"
    assert alpha.version == (22, 5, 8)


@pytest.mark.parametrize("name", ["PowerPlugin", "JobSubmitPlugins", "NoSuchSetting"])
def test_a_setting_without_a_value_is_empty(name: str) -> None:
    assert cluster().setting(name) == ""
    assert cluster().words(name) == frozenset()


@pytest.mark.parametrize("version", ["24.11.0-0rc1", "23.02.7", "22.05.8"])
def test_versions_compare(version: str) -> None:
    assert cluster(f"SLURM_VERSION = {version}\n").version > (22, 4)


def test_partitions() -> None:
    train, infer = cluster().partitions
    assert (train.name, train.default, train.state, train.max_nodes) == ("train", True, "UP", None)
    assert (train.default_min, train.max_min, train.accounts) == (10, 1440, None)
    assert (infer.max_nodes, infer.max_min, infer.default_min) == (1, None, None)
    assert (infer.grace_s, infer.preempt_mode) == (60, "REQUEUE")
    assert infer.accounts == ("vision", "video")
    assert cluster().partition(None) == train
    assert cluster().partition("nowhere") is None


def test_nodes() -> None:
    alpha = cluster()
    usable = {node.name: node.usable for node in alpha.nodes}
    assert usable == {"node1": True, "node2": False, "node3": False, "node4": True}
    [infer] = alpha.nodes_of("infer")
    assert (infer.cpus, infer.memory_mb, infer.gpus) == (16, 128000, {"l4": 2})
    assert alpha.nodes_of("train")[0].cpus == 30  # without those that Slurm keeps for itself


@pytest.mark.parametrize(
    ("gres", "gpus"),
    [
        ("gpu:2", {"": 2}),
        ("gpu", {"": 1}),
        ("gpu:a100:4(S:0-1),nvme:1", {"a100": 4}),
        ("gpu:h100:8(S:0),gpu:a100_1g.5gb:7", {"h100": 8, "a100_1g.5gb": 7}),
        ("shard:8,gpu:2", {"": 2}),
        ("(null)", {}),
        ("", {}),
    ],
)
def test_gpus_of_a_node(gres: str, gpus: dict[str, int]) -> None:
    assert parse_gpus(gres) == gpus


def test_associations() -> None:
    assert cluster().associations == (
        Association("vision", "", ("normal", "high")),
        Association("video", "train", ("normal",)),
    )


def test_text_that_is_none_of_scontrols_is_no_setting() -> None:
    assert parse_config("slurm_load_ctl_conf error: Unable to contact slurm controller\n") == {}
