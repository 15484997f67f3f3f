"""The ranks of a start find one another: at a store of rank 0's each says that it is there."""

from __future__ import annotations

import time
from collections.abc import Iterable, Mapping
from datetime import timedelta
from itertools import groupby

import torch.distributed as dist
from torch.distributed import Store, TCPStore  # type: ignore[attr-defined]

from rtdetr_slurm.contract import FailureClass
from rtdetr_slurm.errors import ActionError

_SHOWN_NODES = 4
_AGENT = "TORCHELASTIC_USE_AGENT_STORE"
"""`True` where torchrun has started the ranks, and keeps the store itself."""


class NotAllMet(ActionError):
    """The ranks have not found one another.

    Attributes:
        node_rank: number of the node that all missing ranks are on; None where it is not known.
    """

    def __init__(self, message: str, node_rank: int | None = None) -> None:
        super().__init__(message, FailureClass.INFRA)
        self.node_rank = node_rank


def meet(environ: Mapping[str, str], limit: timedelta) -> Store:
    """Wait until all ranks are there.

    Args:
        environ: what torchrun tells a rank.

    Returns:
        The store, through which they can tell one another their addresses.

    Raises:
        NotAllMet: within the limit they are not; who is missing.
    """
    names = ("RANK", "WORLD_SIZE", "LOCAL_WORLD_SIZE", "MASTER_PORT")
    rank, ranks, ranks_per_node, port = (int(environ[name]) for name in names)
    address = environ["MASTER_ADDR"]
    where, within = f"{address}:{port}", f"within {limit.total_seconds() / 60:.3g} min"
    deadline = time.monotonic() + limit.total_seconds()
    keeps = rank == 0 and environ.get(_AGENT) != "True"
    try:
        store = TCPStore(address, port, is_master=keeps, timeout=limit, wait_for_workers=False)
    except dist.DistNetworkError as error:
        if keeps:
            raise
        raise NotAllMet(
            f"nobody answers at {where} {within}: rank 0 on node 0 has not come, or the network "
            f"lets nobody through to it ({(str(error).splitlines() or [''])[0]})"
        ) from error
    store.set(_here(rank), "")
    left = max(deadline - time.monotonic(), 0.001)
    try:
        store.wait([_here(one) for one in range(ranks)], timedelta(seconds=left))
    except dist.DistStoreError as error:
        missing = [one for one in range(ranks) if not store.check([_here(one)])]
        if missing:
            nodes = {one // ranks_per_node for one in missing}
            raise NotAllMet(
                f"{len(missing)} of {ranks} ranks have not come to {where} {within}: "
                f"{_by_node(missing, ranks_per_node)}",
                nodes.pop() if len(nodes) == 1 else None,
            ) from error
    return store


def _here(rank: int) -> str:
    return f"here/{rank}"


def _by_node(ranks: Iterable[int], ranks_per_node: int) -> str:
    """`node 1 (rank 2, 3)`; of many nodes the first."""
    nodes = [
        f"node {node} (rank {', '.join(map(str, of_node))})"
        for node, of_node in groupby(ranks, lambda rank: rank // ranks_per_node)
    ]
    more = f" and {len(nodes) - _SHOWN_NODES} more nodes" if len(nodes) > _SHOWN_NODES else ""
    return ", ".join(nodes[:_SHOWN_NODES]) + more
