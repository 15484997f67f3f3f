"""A search in words: what is searched, what it may take, and what its first trials are. Pure."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from rtdetr_slurm.plan.model import Stage
from rtdetr_slurm.plan.search import Parameter
from rtdetr_slurm.slurm.times import format_minutes

_SHOWN = 5
"""Of the first trials."""


def range_text(parameter: Parameter) -> str:
    """What a field may be, in words."""
    if parameter.kind == "categorical":
        pairs = zip(parameter.choices, parameter.weights or parameter.choices, strict=True)
        weighted = bool(parameter.weights)
        return ", ".join(f"{one} (weight {w:g})" if weighted else f"{one}" for one, w in pairs)
    text = f"{_number(parameter.low)} to {_number(parameter.high)}"
    text += f" in steps of {parameter.step}" if parameter.step > 1 else ""
    text += ", logarithmic" if parameter.log else ""
    return text + (f", at most {parameter.at_most}" if parameter.at_most else "")


def search_text(stage: Stage, draws: Sequence[Mapping[str, Any] | None]) -> Iterator[str]:
    """What a search is about to do, line by line.

    Args:
        draws: of its first trials; None for one that is drawn when it begins.
    """
    search, resources = stage.search, stage.resources
    assert search is not None
    workers = len(stage.tasks())
    at_once = workers if stage.array is None else stage.array.throttle or workers
    aims = " and ".join(
        f"{'more' if one.direction == 'maximize' else 'less'} {one.metric}"
        for one in search.objectives
    )
    unit = "process" if stage.launch.accelerator == "cpu" else "GPU"
    gpus = f"{resources.nodes} × {resources.gpus_per_node} {unit}"
    gpus += ("es" if unit == "process" else "s") * (resources.gpus_per_node != 1)
    epochs = "one epoch" if search.epochs == 1 else f"up to {search.epochs} epochs"
    yield (
        f"AutoML: {search.trials} trials of {epochs} each, {at_once} at a time, by "
        f"{search.algorithm}, for {aims}"
    )
    limit = resources.time_min
    hours = None if limit is None else workers * resources.nodes * resources.gpus_per_node * limit
    takes = [
        f"{workers} {'jobs' if workers > 1 else 'job'} of {gpus}",
        "no time limit" if limit is None else f"{format_minutes(limit)} each",
        "" if hours is None else f"{hours / 60:.4g} {unit} hours for one start of all",
        "" if search.gpu_hours is None else f"at most {search.gpu_hours:g} GPU hours",
        "" if search.deadline is None else f"no trial begins after {search.deadline}",
    ]
    yield f"  takes     {', '.join(part for part in takes if part)}"
    for number, parameter in enumerate(search.space):
        yield f"  {'searched' if not number else '':<8}  {parameter.field}: {range_text(parameter)}"
    for number, draw in enumerate(draws[:_SHOWN]):
        yield f"  trial {number:<2}  {_trial(number, draw, search.space)}"
    if len(draws) > _SHOWN:
        yield f"  …         and {len(draws) - _SHOWN} more"


def _trial(number: int, draw: Mapping[str, Any] | None, space: Sequence[Parameter]) -> str:
    if draw is None:
        return "drawn by what is known when it begins"
    values = ", ".join(f"{p.field.rpartition('.')[2]} {_number(draw[p.field])}" for p in space)
    return f"the spec's own: {values}" if number == 0 else values


def _number(value: Any) -> str:
    return f"{value:.4g}" if isinstance(value, float) else f"{value}"
