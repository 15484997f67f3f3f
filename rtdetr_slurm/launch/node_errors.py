"""What a node wrapper refused, for the stage run: a file in the node's folder of the run."""

from __future__ import annotations

import json
import socket
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TypedDict

from rtdetr_slurm.contract import FailureClass
from rtdetr_slurm.errors import UserError
from rtdetr_slurm.files import write_atomic
from rtdetr_slurm.plan.model import StageTask
from rtdetr_slurm.records import Prose, checked, read_json
from rtdetr_slurm.runs.failures import Failure
from rtdetr_slurm.runs.run import Run

ERROR_JSON = "error.json"


class NodeError(TypedDict):
    """What error.json says; `node` is the node's name as the scheduler has it."""

    failure_class: FailureClass
    reason: Prose
    node: str


@dataclass(frozen=True)
class Refusal:
    """What the nodes of a start have refused.

    Attributes:
        failure: that of the lowest rank, and how many more refused.
        nodes: the names of those that refused.
        words: what they said.
        by_all: whether it was all of several nodes.
    """

    failure: Failure
    nodes: tuple[str, ...]
    words: frozenset[str]
    by_all: bool


def node_name(environ: Mapping[str, str]) -> str:
    """This node, as the scheduler calls it."""
    return environ.get("SLURMD_NODENAME") or socket.gethostname()


def write_node_error(run: Run, task: StageTask, rank: int, node: str, error: UserError) -> None:
    """Record why one node did not start."""
    record: NodeError = {
        "failure_class": error.failure_class,
        "reason": str(error),
        "node": node,
    }
    write_atomic(run.node_dir(task, rank) / ERROR_JSON, json.dumps(record) + "\n")


def read_node_errors(run: Run, task: StageTask) -> Refusal | None:
    """What nodes have refused; None where each has started.

    Raises:
        BadRecord: a file cannot be read.
    """
    errors: dict[int, NodeError] = {}
    nodes = task.stage.resources.nodes
    for rank in range(nodes):
        path = run.node_dir(task, rank) / ERROR_JSON
        try:
            errors[rank] = checked(NodeError, read_json(path), path)
        except FileNotFoundError:
            continue
    if not errors:
        return None
    told = {
        rank: f"node {rank} ({error['node']}): {error['reason']}" for rank, error in errors.items()
    }
    first = min(errors)
    more = f" (and {len(errors) - 1} more nodes refused)" if len(errors) > 1 else ""
    return Refusal(
        Failure(errors[first]["failure_class"], told[first] + more),
        tuple(error["node"] for error in errors.values()),
        frozenset(error["reason"] for error in errors.values()),
        by_all=len(errors) == nodes > 1,
    )
