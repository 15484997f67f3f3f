"""Which node is at fault, by what a start has left; and how many may be left out. Pure."""

from __future__ import annotations

from collections.abc import Sequence

from rtdetr_slurm.runs.failures import failed_ranks, failed_task_node

_LEFT_OUT_OF = 10
"""At most one node in so many of a partition is left out."""


def suspects(
    nodes: Sequence[str],
    ranks_per_node: int,
    *,
    refusing: Sequence[str] = (),
    node_rank: int | None = None,
    log_tail: Sequence[str] = (),
) -> tuple[str, ...]:
    """The nodes that a failure of class infra is put down to; none where nothing points at one.

    Args:
        nodes: of the allocation, in order.
        refusing: those that refused to start.
        node_rank: number of the node that the engine has named.
        log_tail: the job's log, of the last start.
    """
    if refusing:
        return tuple(node for node in nodes if node in refusing)
    if len(nodes) == 1:
        return tuple(nodes)
    if node_rank is None and ranks_per_node:
        failed = {rank // ranks_per_node for rank in failed_ranks(log_tail)}
        # What ranks of several nodes say alike (weights that have drifted apart) is no node's.
        node_rank = failed.pop() if len(failed) == 1 else None
    if node_rank is not None and node_rank < len(nodes):
        return (nodes[node_rank],)
    named = failed_task_node(log_tail)
    return (named,) if named is not None and named in nodes else ()


def left_out(bad: Sequence[str], partition_nodes: int, needed: int) -> tuple[str, ...]:
    """Of the nodes that were at fault, latest first, those that Slurm is to leave out.

    No more than a tenth of the partition, in a small one a single node, and always few enough that
    the job still fits. The latest go first: that is where it would fail again.
    """
    most = min(max(partition_nodes // _LEFT_OUT_OF, 1), partition_nodes - needed)
    return tuple(bad[: max(most, 0)])
