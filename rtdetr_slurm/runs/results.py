"""What a stage has come to so far: progress, metrics, files. Standard library only."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from rtdetr_slurm.actions import get_action
from rtdetr_slurm.contract import ANNOTATED_IMAGE, Kpi
from rtdetr_slurm.plan.model import Stage
from rtdetr_slurm.runs.checkpoints import best_checkpoint, last_checkpoint

_SHOWN_METRICS = (Kpi.VAL_MAP, Kpi.VAL_MAP50, Kpi.TEST_MAP, Kpi.TEST_MAP50, Kpi.TRAIN_LOSS)


@dataclass(frozen=True)
class Progress:
    """Where a stage is, from its status.json.

    Attributes:
        epoch: the last epoch that was completed, counted from 0 as TAO does.
        max_epoch: the last epoch there will be.
        eta: time left, as the engine writes it.
        metrics: the newest value of each KPI.
        message: of the last line.
    """

    epoch: int | None = None
    max_epoch: int | None = None
    eta: str | None = None
    metrics: Mapping[str, float] = field(default_factory=dict)
    message: str = ""

    @property
    def shown_metrics(self) -> list[tuple[str, float]]:
        return [(name, self.metrics[name]) for name in _SHOWN_METRICS if name in self.metrics]


def progress_of(lines: Sequence[Mapping[str, Any]]) -> Progress:
    """The newest value of everything that status lines carry."""
    known: dict[str, Any] = {}
    metrics: dict[str, float] = {}
    for line in lines:
        known.update({k: line[k] for k in ("epoch", "max_epoch", "eta") if k in line})
        kpi = line.get("kpi")
        if isinstance(kpi, Mapping):
            metrics.update({k: v for k, v in kpi.items() if isinstance(v, int | float)})
    message = str(lines[-1].get("message", "")) if lines else ""
    return Progress(metrics=metrics, message=message, **known)


@dataclass(frozen=True)
class Results:
    """The files a user wants at the end; each None where there is none."""

    best: Path | None
    best_metric: float | None
    last: Path | None
    picture: Path | None


def results_of(stage: Stage) -> Results:
    """Looks into the results folder; every checkpoint named has been verified to be whole."""
    folder = Path(stage.results_dir)
    trains = get_action(stage.action).trains
    best = best_checkpoint(folder) if trains else None
    last = last_checkpoint(folder) if trains else None
    picture = folder / ANNOTATED_IMAGE
    return Results(
        best=best.path if best else None,
        best_metric=best.metric if best else None,
        last=last.path if last else None,
        picture=picture if picture.exists() else None,
    )
