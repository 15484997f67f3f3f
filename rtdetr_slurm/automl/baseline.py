"""What the trials of a search start from, and what that is worth. Standard library only."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from rtdetr_slurm.contract import Kpi
from rtdetr_slurm.plan.model import StageTask
from rtdetr_slurm.plan.search import BASELINE
from rtdetr_slurm.runs.claim import claim_id
from rtdetr_slurm.runs.run import Run, status_path
from rtdetr_slurm.runs.status import status_lines_of


@dataclass(frozen=True)
class Baseline:
    """What the model that all trials start from is worth without any training.

    Attributes:
        metric: of its evaluation.
    """

    metric: str
    value: float


def baseline_of(run: Run) -> Baseline | None:
    """The score of what all trials start from; None where it was not evaluated (yet)."""
    if not any(stage.name == BASELINE for stage in run.plan.stages):
        return None
    task = StageTask(run.plan.stage(BASELINE))
    found: Mapping[str, Any] = {}
    for line in status_lines_of(status_path(task), claim_id(run.id, task.name)):
        found = {**found, **line.get("kpi", {})}
    value = found.get(Kpi.TEST_MAP)
    return Baseline(Kpi.TEST_MAP, float(value)) if isinstance(value, int | float) else None
