"""Whether a training ends before its last epoch. Standard library only."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from pathlib import Path

from rtdetr_slurm.contract import HIGHER_IS_BETTER
from rtdetr_slurm.runs.checkpoints import epoch_of_name, kpi_by_epoch

History = Mapping[str, Mapping[int, float]]
"""Name of a KPI to epoch to value, as `checkpoints.kpi_by_epoch` has it."""


def why_stopped(history: History, monitor: str, patience: int, min_delta: float) -> str | None:
    """Why a training with this behind it goes on no more; None where it does.

    Args:
        monitor: the KPI that has to get better.
        patience: so many of its values in a row may be no better; 0: any number.
        min_delta: by how much more than this a value has to be better.
    """
    values = history.get(monitor, {})
    in_order = [values[epoch] for epoch in sorted(values)]
    waited = without_gain(in_order, min_delta, higher=monitor in HIGHER_IS_BETTER)
    if not patience or waited < patience:
        return None
    best, done = in_order[-1 - waited], max(values) + 1
    than = f" by more than {min_delta:g}" if min_delta else ""
    return (
        f"stops early after epoch {done}: {monitor} was not better than {best:.4f}{than} "
        f"{waited} times in a row (engine.early_stopping.patience {patience})"
    )


def why_stopped_at(checkpoint: Path, monitor: str, patience: int, min_delta: float) -> str | None:
    """As `why_stopped`, of a training that goes on from the checkpoint of an epoch, by what lies
    beside that; None where the file's name tells no epoch.

    Raises:
        as `kpi_by_epoch`.
    """
    path = Path(os.path.realpath(checkpoint))
    last = epoch_of_name(path.name)
    if last is None or not patience:
        return None
    behind = {
        name: {epoch: value for epoch, value in values.items() if epoch <= last}
        for name, values in kpi_by_epoch(path.parent).items()
    }
    return why_stopped(behind, monitor, patience, min_delta)


def without_gain(values: Iterable[float], min_delta: float, *, higher: bool) -> int:
    """How many values have come since the last that was better than all before it."""
    best: float | None = None
    count = 0
    for value in values:
        gain = None if best is None else (value - best if higher else best - value)
        if gain is None or gain > min_delta:
            best, count = value, 0
        else:
            count += 1
    return count
