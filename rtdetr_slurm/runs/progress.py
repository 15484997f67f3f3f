"""Where an action is, from its status.json. Pure; standard library only."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from rtdetr_slurm.contract import Kpi
from rtdetr_slurm.runs.status import StatusLine

_SHOWN_METRICS = (Kpi.VAL_MAP, Kpi.VAL_MAP50, Kpi.TEST_MAP, Kpi.TEST_MAP50, Kpi.TRAIN_LOSS)


def shown_epoch(epoch: int, num_epochs: int) -> str:
    """An epoch, counted from 0 in files, as people are told of it: `3/12`."""
    return f"{epoch + 1}/{num_epochs}"


@dataclass(frozen=True)
class Progress:
    """Where a stage is, from its status.json.

    Attributes:
        epoch: the last epoch that was completed, counted from 0 as TAO does.
        max_epoch: the last epoch there will be.
        eta: time left, as the engine writes it, without fractions of a second.
        metrics: the newest value of each KPI.
    """

    epoch: int | None = None
    max_epoch: int | None = None
    eta: str | None = None
    metrics: Mapping[str, float] = field(default_factory=dict)

    @property
    def shown_epoch(self) -> str:
        """Epochs done and in all, `3/12`; empty before the first is done."""
        return "" if self.epoch is None else shown_epoch(self.epoch, (self.max_epoch or 0) + 1)

    @property
    def shown_metrics(self) -> list[tuple[str, float]]:
        return [(name, self.metrics[name]) for name in _SHOWN_METRICS if name in self.metrics]


def progress_of(lines: Sequence[StatusLine]) -> Progress:
    """The newest value of everything that status lines carry."""
    known: dict[str, Any] = {}
    metrics: dict[str, float] = {}
    for line in lines:
        if "epoch" in line:
            known["epoch"] = line["epoch"]
        if "max_epoch" in line:
            known["max_epoch"] = line["max_epoch"]
        if "eta" in line:
            known["eta"] = line["eta"].partition(".")[0]
        kpi = line.get("kpi", {})
        metrics.update({k: v for k, v in kpi.items() if isinstance(v, int | float)})
    return Progress(metrics=metrics, **known)
