"""Nodes, ranks and ports of a start: what the launch says against what the spec asks for.

Whatever does not agree is an error that names itself; nothing is ever corrected into another
topology.
"""

from __future__ import annotations

import socket
from collections.abc import Mapping
from dataclasses import dataclass

from rtdetr_slurm.actions import Action
from rtdetr_slurm.contract import Env
from rtdetr_slurm.errors import SiteError
from rtdetr_slurm.spec import Topology


@dataclass(frozen=True)
class Rendezvous:
    """Where the ranks of a start meet, in the words of torchrun.

    Attributes:
        launched: by an outer launcher (WORLD_SIZE was set), which has placed the devices already.
    """

    nodes: int
    node_rank: int
    processes_per_node: int
    master_addr: str
    master_port: int
    launched: bool


def node_rank_variable(environment: Mapping[str, str]) -> str:
    """What holds the node's rank; TAO's launchers set RANK alone."""
    return Env.NODE_RANK if Env.NODE_RANK in environment else Env.RANK


def read_rendezvous(environment: Mapping[str, str], action: Action, asked: Topology) -> Rendezvous:
    """The rendezvous of this start.

    Under a launcher WORLD_SIZE is the number of nodes, as in TAO's entry point; without
    WORLD_SIZE this is one node, started by hand, and a free port is taken.

    Args:
        environment: usually os.environ.
        asked: what the spec asks for.

    Raises:
        SiteError: the launch is incomplete or is not what the spec asks for.
    """
    if Env.WORLD_SIZE not in environment:
        if asked.num_nodes != 1:
            raise SiteError(
                f"{action.topology}.num_nodes is {asked.num_nodes}, but {Env.WORLD_SIZE} (the "
                "number of nodes) is not set: several nodes need a launcher, such as "
                "rtdetr-slurm submit"
            )
        return Rendezvous(1, 0, asked.num_gpus, "127.0.0.1", free_port(), launched=False)
    nodes = _number(environment, Env.WORLD_SIZE, 1, None)
    node_rank = _number(environment, node_rank_variable(environment), 0, nodes - 1)
    processes = _number(environment, Env.NUM_GPU_PER_NODE, 1, None)
    _check_agree(action, Env.WORLD_SIZE, nodes, "num_nodes", asked.num_nodes)
    _check_agree(action, Env.NUM_GPU_PER_NODE, processes, "num_gpus", asked.num_gpus)
    address = environment.get(Env.MASTER_ADDR, "")
    if not address:
        raise SiteError(f"{Env.MASTER_ADDR} is not set: the address of node 0 is needed")
    port = _number(environment, Env.MASTER_PORT, 1024, 65535)
    return Rendezvous(nodes, node_rank, processes, address, port, launched=True)


def free_port() -> int:
    """A port on the loopback interface that nobody listens on now."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        port: int = listener.getsockname()[1]
        return port


def _check_agree(action: Action, name: str, found: int, field: str, asked: int) -> None:
    """Compare a number of the launch with the spec's, in the section that the user wrote it in."""
    if found == asked:
        return
    wanted = f"{action.name} runs on one GPU"
    if action.topology is not None:
        wanted = f"the spec has {action.topology}.{field}={asked}"
    raise SiteError(f"the launch has {name}={found}, {wanted}: they must agree")


def _number(environment: Mapping[str, str], name: str, low: int, high: int | None) -> int:
    text = environment.get(name)
    if text is None:
        raise SiteError(f"{Env.WORLD_SIZE} is set, but {name} is not: the launch is incomplete")
    try:
        value = int(text)
    except ValueError:
        raise SiteError(f"{name} is '{text}', which is not a whole number") from None
    if value < low or (high is not None and value > high):
        allowed = f"{low} to {high}" if high is not None else f"at least {low}"
        raise SiteError(f"{name} is {value}; allowed is {allowed}")
    return value
