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
from rtdetr_slurm.devices import count_visible
from rtdetr_slurm.errors import SiteError
from rtdetr_slurm.spec import Topology

TORCHRUN_PORT = 29500
"""torchrun's default, and TAO's; a fixed port that two jobs on one node cannot both have."""


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

    Under a launcher WORLD_SIZE is the number of nodes, as in TAO's entry point, and what it leaves
    out has TAO's defaults: MASTER_PORT 29500, NUM_GPU_PER_NODE all GPUs that are visible. Without
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
    several = nodes > 1
    node_rank = _number(
        environment, node_rank_variable(environment), 0, nodes - 1, None if several else 0
    )
    _check_agree(action, Env.WORLD_SIZE, nodes, "num_nodes", asked.num_nodes)
    processes = _processes(environment, action, asked)
    address = environment.get(Env.MASTER_ADDR) or ("" if several else "127.0.0.1")
    if not address:
        raise SiteError(f"{Env.MASTER_ADDR} is not set: the address of node 0 is needed")
    port = _number(environment, Env.MASTER_PORT, 1024, 65535, TORCHRUN_PORT)
    return Rendezvous(nodes, node_rank, processes, address, port, launched=True)


def _processes(environment: Mapping[str, str], action: Action, asked: Topology) -> int:
    """Processes on this node; where the launcher does not say: one for each visible GPU, and on the
    CPU what the spec asks for."""
    on_cpu = environment.get(Env.ACCELERATOR) == "cpu"
    visible = 0 if on_cpu else count_visible(environment.get(Env.CUDA_VISIBLE_DEVICES))
    processes = _number(environment, Env.NUM_GPU_PER_NODE, 1, None, visible or asked.num_gpus)
    name = Env.NUM_GPU_PER_NODE
    if name not in environment:
        name += " (not set, so all GPUs that are visible)"
    _check_agree(action, name, processes, "num_gpus", asked.num_gpus)
    # Our own launch has placed the devices by gpu_ids already.
    if Env.CLAIM not in environment and visible and asked.gpu_ids != tuple(range(processes)):
        ids = ",".join(map(str, asked.gpu_ids))
        raise SiteError(
            f"the spec has {action.gpu_section}.gpu_ids={list(asked.gpu_ids)}, but under a "
            f"launcher ({Env.WORLD_SIZE} is set) they count within the GPUs that are visible, "
            f"{list(range(processes))}: for those devices set {Env.CUDA_VISIBLE_DEVICES}={ids}"
        )
    return processes


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


def _number(
    environment: Mapping[str, str],
    name: str,
    low: int,
    high: int | None,
    default: int | None = None,
) -> int:
    text = environment.get(name)
    if text is None:
        if default is not None:
            return default
        raise SiteError(f"{Env.WORLD_SIZE} is set, but {name} is not: the launch is incomplete")
    try:
        value = int(text)
    except ValueError:
        raise SiteError(f"{name} is '{text}', which is not a whole number") from None
    if value < low or (high is not None and value > high):
        allowed = f"{low} to {high}" if high is not None else f"at least {low}"
        raise SiteError(f"{name} is {value}; allowed is {allowed}")
    return value
