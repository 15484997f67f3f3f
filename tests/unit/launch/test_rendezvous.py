"""Rank, address and port."""

from __future__ import annotations

import socket

import pytest

from rtdetr_slurm.errors import SiteError
from rtdetr_slurm.launch import rendezvous
from rtdetr_slurm.launch.rendezvous import (
    Layout,
    layout_of_task,
    master_port,
    reserve_port,
    resolve,
)

TASK = {
    "SLURM_PROCID": "1",
    "SLURM_NODEID": "1",
    "SLURM_STEP_NUM_NODES": "2",
    "SLURM_STEP_NUM_TASKS": "2",
}


def test_neighbouring_jobs_and_restarts_get_other_ports() -> None:
    ports = [master_port(str(job_id), 0) for job_id in range(1000, 13_000)]
    assert len(set(ports)) == len(ports)
    assert all(20_000 <= port < 32_768 for port in ports)
    restarts = [master_port("77", restart) for restart in range(20)]
    assert len(set(restarts)) == 20
    steps = [master_port("77", 0, step) for step in range(20)]
    assert len(set(steps)) == 20
    tasks = [master_port(f"77_{task}", 0) for task in range(200)]
    assert len(set(tasks)) == 200


def port_of(reserved: socket.socket) -> int:
    return int(reserved.getsockname()[1])


def test_two_jobs_on_a_node_never_get_one_port(monkeypatch: pytest.MonkeyPatch) -> None:
    """Also when they would begin with the same one, and the ranks of neither listen yet."""
    with reserve_port("8642", 0) as first, reserve_port("8642", 0) as second:
        assert port_of(first) != port_of(second)
        with socket.socket() as ranks:
            ranks.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            ranks.bind(("", port_of(first)))
            ranks.listen()
        monkeypatch.setattr(rendezvous, "_ATTEMPTS", 2)
        with pytest.raises(SiteError, match=r"none of the 2 ports .* job 8642 can be used"):
            reserve_port("8642", 0)
    with reserve_port("8642", 0) as again:
        assert port_of(again) == master_port("8642", 0)


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
