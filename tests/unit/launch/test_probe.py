"""The parts of a probe that need no node."""

from __future__ import annotations

from functools import partial
from typing import Any

import pytest

from rtdetr_slurm.launch.attempts import Settings, all_trials, attempts
from rtdetr_slurm.launch.probe import evidence_of
from rtdetr_slurm.launch.probe_node import default_interface, driver_version
from rtdetr_slurm.launch.reach import s3_endpoint, shown_address
from rtdetr_slurm.runs.probe import Trial

IB = ["ib0", "ib0"]


def test_the_profiles_own_settings_come_first() -> None:
    for nodes in (1, 2):
        for accelerator in ("cpu", "cuda", None):
            assert attempts(nodes, accelerator, IB)[0] == {}


def test_between_nodes_the_network_is_tried() -> None:
    names = [" ".join(sorted(one)) for one in attempts(2, "cuda", IB)]
    assert names == [
        "",
        "GLOO_SOCKET_IFNAME NCCL_SOCKET_IFNAME",
        "NCCL_IB_DISABLE",
        "GLOO_SOCKET_IFNAME NCCL_IB_DISABLE NCCL_SOCKET_IFNAME",
    ]


def test_within_a_node_the_ways_between_gpus_are() -> None:
    tried = attempts(1, "cuda", IB)
    p2p, shm = {"NCCL_P2P_DISABLE": "1"}, {"NCCL_SHM_DISABLE": "1"}
    assert tried == [{}, p2p, shm, {**p2p, **shm}]


def came_of(nodes: int, settings: Settings, *, met: bool, works: bool) -> Trial:
    reduced: Any = {} if works else None
    return {"nodes": nodes, "settings": dict(settings), "met": met, "seconds": 1.0,
            "evidence": "", "reduced": reduced}  # fmt: skip


@pytest.mark.parametrize(
    ("outcomes", "goes_on", "tried"),
    [
        (["works"], True, [{"KEPT": "1"}]),
        (["met", "works"], True, [{"KEPT": "1"}, {"KEPT": "1", "A": "1"}]),
        (["missed", "works"], True, [{"KEPT": "1"}] * 2),
        (["missed", "missed"], False, [{"KEPT": "1"}] * 2),
        (["met", "missed", "works"], True, [{"KEPT": "1"}, *[{"KEPT": "1", "A": "1"}] * 2]),
        (["met", "met"], True, [{"KEPT": "1"}, {"KEPT": "1", "A": "1"}]),
    ],
)
def test_an_image_that_is_not_entered_again_is_tried_twice(
    outcomes: list[str], goes_on: bool, tried: list[Settings]
) -> None:
    found = [came_of(1, {"KEPT": "1"}, met=True, works=True)]
    to_come = iter(outcomes)

    def reduce(nodes: int, settings: Settings) -> Trial:
        outcome = next(to_come)
        return came_of(nodes, settings, met=outcome != "missed", works=outcome == "works")

    assert all_trials(2, [{}, {"A": "1"}], found, reduce, lambda: False) is goes_on
    assert [trial["settings"] for trial in found[1:]] == tried
    assert next(to_come, None) is None


def test_an_image_that_was_never_entered_is_tried_once() -> None:
    found: list[Trial] = []
    missed = partial(came_of, met=False, works=False)
    assert not all_trials(1, [{}, {"A": "1"}], found, missed, lambda: False)
    assert len(found) == 1


@pytest.mark.parametrize("interfaces", [["ib0", "eth0"], ["ib0", None], [None, None], []])
def test_an_interface_is_named_where_it_is_the_same_on_all_nodes(
    interfaces: list[str | None],
) -> None:
    assert attempts(2, "cpu", interfaces) == [{}]
    assert attempts(2, "cuda", interfaces) == [{}, {"NCCL_IB_DISABLE": "1"}]


def test_facts_of_the_kernel() -> None:
    route = "Iface\tDestination\tGateway\tFlags\tRefCnt\tUse\tMetric\tMask\tMTU\n"
    route += "ib1\t0000A8C0\t00000000\t0001\t0\t0\t0\t00FFFFFF\t0\n"
    route += "eth0\t00000000\t010200C0\t0003\t0\t0\t0\t00000000\t0\n"
    assert default_interface(route) == "eth0"
    assert default_interface("") is None
    version = "NVRM version: NVIDIA UNIX x86_64 Kernel Module  550.54.15  Tue Mar  5 22:23:56 UTC"
    assert driver_version(version) == "550.54.15"
    assert driver_version("") is None


@pytest.mark.parametrize(
    ("given", "environ", "endpoint"),
    [
        ({}, {"AWS_ENDPOINT_URL": "http://s3"}, None),
        ({"AWS_ENDPOINT_URL": None}, {"AWS_ENDPOINT_URL": "http://s3"}, "http://s3"),
        ({"AWS_ENDPOINT_URL": "http://own"}, {}, "http://own"),
        ({"AWS_ENDPOINT_URL": "http://own", "AWS_ENDPOINT_URL_S3": "http://b"}, {}, "http://b"),
        ({"AWS_PROFILE": "me"}, {}, "https://s3.us-east-1.amazonaws.com"),
        (
            {"AWS_ACCESS_KEY_ID": None, "AWS_REGION": "eu-north-1"},
            {"AWS_ACCESS_KEY_ID": "x"},
            "https://s3.eu-north-1.amazonaws.com",
        ),
        ({"AWS_ACCESS_KEY_ID": None}, {}, None),
    ],
)
def test_which_s3_service_jobs_use(
    given: dict[str, Any], environ: dict[str, str], endpoint: str | None
) -> None:
    assert s3_endpoint(given, environ) == endpoint


def test_no_password_is_shown() -> None:
    assert (
        shown_address("https://me:secret@s3.example:9000/bucket?key=1") == "https://s3.example:9000"
    )


@pytest.mark.parametrize(
    ("code", "log", "evidence"),
    [
        (
            None,
            ["rtdetr: starts its ranks", ""],
            "killed; the last line of its log: rtdetr: starts",
        ),
        (1, ["Timeout (0:02:00)!", "Thread 0x1:", '  File "a.py", line 1 in b'], "never came back"),
        (1, ["rtdetr: error: rank 1: no route", "x"], "rtdetr: error: rank 1: no route"),
        (255, ["FATAL:   no such image"], "FATAL:   no such image"),
    ],
)
def test_why_an_attempt_failed(code: int | None, log: list[str], evidence: str) -> None:
    assert evidence in evidence_of(code, log)
