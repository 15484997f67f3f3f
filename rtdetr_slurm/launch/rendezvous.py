"""Where the ranks of a stage meet: addresses, ports and node numbers."""

from __future__ import annotations

import socket
from collections.abc import Mapping
from dataclasses import dataclass

from rtdetr_slurm.errors import SiteError
from rtdetr_slurm.slurm.job_ids import numbers_of

# Registered ports above the crowded ones and below Linux' ephemeral range (from 32768).
FIRST_PORT, PORT_COUNT = 20000, 12768
_RESTART_STRIDE, _STEP_STRIDE, _TASK_STRIDE, _ATTEMPT_STRIDE = 4001, 577, 61, 1009
_ATTEMPTS = 50

MASTER_HOST = "RTDETR_SLURM_MASTER_HOST"
"""Host name of node 0 as node 0 itself says it; handed from the stage run to the node wrappers."""


def master_port(job_id: str, restart: int, step: int = 0, attempt: int = 0) -> int:
    """The rendezvous port of one step of one start of a job, 20000..32767.

    Jobs whose ids are neighbours, and tasks of one array, never share a port, and a requeued job
    and a further step take another one, so that their predecessor's sockets are not in the way.

    Args:
        attempt: how many such ports have been found taken before.
    """
    job, task = numbers_of(job_id)
    offset = job + _TASK_STRIDE * task + _RESTART_STRIDE * restart + _STEP_STRIDE * step
    return FIRST_PORT + (offset + _ATTEMPT_STRIDE * attempt) % PORT_COUNT


def reserve_port(job_id: str, restart: int, step: int = 0) -> socket.socket:
    """A socket on the first of a step's ports that nobody has on this node.

    As long as it stays open no other job reserves the port, and the ranks, which come seconds
    later, can listen there all the same: it does not listen itself, and allows reuse.

    Raises:
        SiteError: all of them are taken.
    """
    for attempt in range(_ATTEMPTS):
        reserved = socket.socket()
        try:
            reserved.bind(("", master_port(job_id, restart, step, attempt)))
        except OSError:
            reserved.close()
            continue
        reserved.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        return reserved
    raise SiteError(
        f"none of the {_ATTEMPTS} ports from {FIRST_PORT} on that belong to job {job_id} can be "
        "used on the first node: its processes hold them, or its system forbids them"
    )


def resolve(host: str) -> str:
    """The address of `host`, IPv4 where it has one.

    Raises:
        SiteError: the name does not resolve.
    """
    try:
        found = socket.getaddrinfo(host, None, type=socket.SOCK_STREAM)
    except OSError as error:
        raise SiteError(
            f"the name of the first node, '{host}', does not resolve to an address: {error}"
        ) from error
    found.sort(key=lambda entry: entry[0] != socket.AF_INET)
    return str(found[0][4][0])


@dataclass(frozen=True)
class Layout:
    """This node's place among the nodes of the stage."""

    rank: int
    nodes: int


def layout_of_task(environ: Mapping[str, str]) -> Layout:
    """Rank and node count of this task of an inner srun, from Slurm's variables.

    Raises:
        SiteError: not one task on each node, in node order.
    """
    names = ("SLURM_PROCID", "SLURM_NODEID", "SLURM_STEP_NUM_NODES", "SLURM_STEP_NUM_TASKS")
    missing = [name for name in names if not environ.get(name, "").isdigit()]
    if missing:
        raise SiteError(f"not inside a Slurm task: {', '.join(missing)} not set")
    task, node, nodes, tasks = (int(environ[name]) for name in names)
    if tasks != nodes:
        raise SiteError(f"{tasks} tasks on {nodes} nodes; exactly one task per node is needed")
    if task != node:
        raise SiteError(
            f"task {task} runs on node {node} of the allocation; tasks must follow the order of "
            "nodes (is SLURM_DISTRIBUTION or a task plugin changing it?)"
        )
    return Layout(node, nodes)
