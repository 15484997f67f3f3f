"""What a draw becomes before it is trained with: values that can work."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from rtdetr_slurm.automl.draws import Values, bounds
from rtdetr_slurm.automl.history import TrialRecord
from rtdetr_slurm.contract import FailureClass
from rtdetr_slurm.plan.search import Parameter, Search

BATCH_SIZE = "dataset.batch_size"


def adjusted(
    search: Search, drawn: Values, trials: Sequence[TrialRecord]
) -> tuple[dict[str, Any], dict[str, str]]:
    """Effective values, and by field why they are not those drawn.

    A value that may not exceed another's is lowered to it; a batch size that ran out of GPU memory
    in another trial, or a larger one, to the next that did not, where the search has one.
    """
    values, reasons = dict(drawn), dict[str, str]()
    for parameter in search.space:
        limit = values.get(parameter.at_most) if parameter.at_most else None
        if limit is not None and values[parameter.field] > limit:
            reasons[parameter.field] = (
                f"{values[parameter.field]} drawn, {parameter.at_most} is {limit}"
            )
            values[parameter.field] = limit
        if parameter.field == BATCH_SIZE:
            too_large = _out_of_memory(trials)
            size = values[BATCH_SIZE]
            if too_large is None or size < too_large.values[BATCH_SIZE]:
                continue
            smaller = _largest_below(parameter, too_large.values[BATCH_SIZE])
            if smaller is not None:
                values[BATCH_SIZE] = smaller
                reasons[BATCH_SIZE] = (
                    f"{size} drawn, trial {too_large.number} ran out of GPU memory with "
                    f"{too_large.values[BATCH_SIZE]}"
                )
    return values, reasons


def _out_of_memory(trials: Sequence[TrialRecord]) -> TrialRecord | None:
    """The trial that did with the smallest batch."""
    failed = [
        trial
        for trial in trials
        if trial.failure is not None
        and trial.failure[0] == FailureClass.OOM_GPU
        and BATCH_SIZE in trial.values
    ]
    return min(failed, key=lambda trial: float(trial.values[BATCH_SIZE]), default=None)


def _largest_below(parameter: Parameter, size: float) -> Any:
    if parameter.kind == "categorical":
        return max((choice for choice in parameter.choices if choice < size), default=None)
    low, high = bounds(parameter)
    steps = math.ceil((min(size, high + parameter.step) - low) / parameter.step) - 1
    return int(low) + steps * parameter.step if steps >= 0 else None
