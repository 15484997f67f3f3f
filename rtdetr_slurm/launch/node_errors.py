"""What a node wrapper leaves for the stage run when it refuses to start."""

from __future__ import annotations

import json
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
    """What error.json says."""

    failure_class: FailureClass
    reason: Prose


def write_node_error(run: Run, task: StageTask, rank: int, error: UserError) -> None:
    """Record why one node did not start."""
    record: NodeError = {"failure_class": error.failure_class, "reason": str(error)}
    write_atomic(run.node_dir(task, rank) / ERROR_JSON, json.dumps(record) + "\n")


def read_node_errors(run: Run, task: StageTask) -> Failure | None:
    """The refusal of the lowest rank that refused, and how many more there are.

    Raises:
        BadRecord: one cannot be read.
    """
    failures = []
    for rank in range(task.stage.resources.nodes):
        path = run.node_dir(task, rank) / ERROR_JSON
        try:
            error = checked(NodeError, read_json(path), path)
        except FileNotFoundError:
            continue
        failures.append(Failure(error["failure_class"], error["reason"]))
    if not failures:
        return None
    more = f" (and {len(failures) - 1} more nodes refused)" if len(failures) > 1 else ""
    return Failure(failures[0].failure_class, failures[0].evidence + more)
