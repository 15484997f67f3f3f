"""What a field may be in a search that says nothing about it: around the spec's own value. Pure."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any, get_args

from rtdetr_slurm.plan.search import Parameter
from rtdetr_slurm.spec import ExperimentConfig
from rtdetr_slurm.spec.backbones import family
from rtdetr_slurm.spec.model import Backbone

_UNIT = (0.0, 1.0)


def own_range(
    field: str, default: Any, node: Mapping[str, Any], experiment: ExperimentConfig
) -> Parameter | None:
    """The range that a field has by itself; None where it has none, and somebody must say one.

    Args:
        default: the spec's own value, which is within.
        node: of the field in the schema of the action.
    """
    if isinstance(default, bool):
        return Parameter(field, "categorical", default, choices=(False, True))
    if field == "model.backbone":
        same = (name for name in get_args(Backbone) if family(name) == family(default))
        choices = (*dict.fromkeys((default, *same)),)
        return Parameter(field, "categorical", default, choices=choices)
    if isinstance(default, str):
        options = tuple(option for option in node.get("enum", ()) if isinstance(option, str))
        weights = tuple(node.get("option_weights", ()))
        if len(options) < 2:
            return None
        return Parameter(field, "categorical", default, choices=options, weights=weights)
    rule = _RULES.get(field)
    if rule is not None:
        low, high, log = rule(default, experiment)
    elif isinstance(default, int):
        low, high, log = max(1, default // 2), 2 * default, False
    elif isinstance(default, float) and (node.get("minimum"), node.get("maximum")) == _UNIT:
        low, high, log = 0.0, 1.0, False
    elif isinstance(default, float) and default > 0:
        low, high, log = _rounded(default / 4), _rounded(default * 4), True
    else:
        return None
    low, high = _bounded(low, high, node)
    if not low < high or (log and low <= 0):
        return None
    if not isinstance(default, int):
        return Parameter(field, "float", default, low=low, high=high, log=log)
    return _of_integers(Parameter(field, "int", default, low=low, high=high, log=log))


def _bounded(low: float, high: float, node: Mapping[str, Any]) -> tuple[float, float]:
    return max(low, node.get("minimum", low)), min(high, node.get("maximum", high))


def _of_integers(found: Parameter) -> Parameter:
    """A step that leaves about ten values, the spec's own among them."""
    assert found.low is not None
    assert found.high is not None
    default, step = found.default, max(1, round((found.high - found.low) / 10))
    if found.log or step == 1:
        return found
    low = default - (default - int(found.low)) // step * step
    high = default + (int(found.high) - default) // step * step
    return replace(found, low=low, high=high, step=step) if low < high else replace(found, step=1)


def up_to(found: Parameter, most: int) -> Parameter | None:
    """A range of integers without what is above a limit, which its default is not; None where
    nothing else is left."""
    assert found.low is not None
    high = int(found.low) + (most - int(found.low)) // found.step * found.step
    return replace(found, high=high) if found.low < high else None


# --- ranges of particular fields --------------------------------------------------------------
Bounds = tuple[float, float, bool]
"""Lowest, highest, and whether the scale is logarithmic."""


def _rounded(number: float) -> float:
    return float(f"{number:.6g}")


def _rate(default: float, _: ExperimentConfig) -> Bounds:
    return _rounded(default / 10), min(1.0, _rounded(default * 10)), True


def _ema_decay(default: float, _: ExperimentConfig) -> Bounds:
    missing = 1 - default
    return max(0.5, _rounded(1 - 10 * missing)), _rounded(1 - missing / 10), False


def _drop(default: float, _: ExperimentConfig) -> Bounds:
    return min(0.05, default), max(0.5, default), False


def _step_size(default: int, experiment: ExperimentConfig) -> Bounds:
    epochs = experiment.train.num_epochs
    return min(default, max(1, epochs // 4)), max(default, epochs - 1), False


def _batch_size(default: int, _: ExperimentConfig) -> Bounds:
    return max(1, default // 2), 2 * default, False


def _queries(default: int, _: ExperimentConfig) -> Bounds:
    return max(1, default // 3), 2 * default, False


def _layers(default: int, experiment: ExperimentConfig) -> Bounds:
    return max(1, default // 2, experiment.model.eval_idx + 1), default + 2, False


def _encoder_layers(default: int, _: ExperimentConfig) -> Bounds:
    return max(1, default - 1), default + 2, False


_RULES: Mapping[str, Callable[[Any, ExperimentConfig], Bounds]] = {
    "train.optim.lr": _rate,
    "train.optim.lr_backbone": _rate,
    "train.optim.weight_decay": _rate,
    "train.optim.lr_decay": _drop,
    "train.optim.lr_step_size": _step_size,
    "train.ema.decay": _ema_decay,
    "dataset.batch_size": _batch_size,
    "model.num_queries": _queries,
    "model.num_select": _queries,
    "model.dec_layers": _layers,
    "model.enc_layers": _encoder_layers,
}
