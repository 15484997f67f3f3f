"""Where a learning curve leads to."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from itertools import accumulate

from rtdetr_slurm.plan.search import Objective, Search

_FEWEST = 4
"""Scored epochs below which three constants fit anything."""
_POWERS = (0.0, 0.25, 0.5, 0.75, 1.0, 1.5, 2.0)
"""0 stands for the logarithm, which levels off nowhere: most curves look like that for long."""
_ERRORS = 3.0
"""How many times its standard error a prediction is given the benefit of."""


def hopeless(curve: Mapping[int, float], others: Sequence[float], search: Search) -> bool:
    """Whether a training is going to end with less than the best of the other scores, even if it
    does better than predicted."""
    if len(curve) < _FEWEST or not others or _gathers_speed(curve, search.objective):
        return False
    predicted, error = predict(curve, search.epochs)
    objective = search.objective
    if objective.direction == "maximize":
        return max(predicted + _ERRORS * error, *curve.values()) < max(others)
    return min(predicted - _ERRORS * error, *curve.values()) > min(others)


def _gathers_speed(curve: Mapping[int, float], objective: Objective) -> bool:
    """Whether its best score has gained as much in the second half as in the first: no power law
    says where that ends."""
    better = max if objective.direction == "maximize" else min
    bests = [*accumulate((curve[epoch] for epoch in sorted(curve)), better)]
    first, middle, last = bests[0], bests[len(bests) // 2], bests[-1]
    return abs(last - middle) >= abs(middle - first)


def predict(curve: Mapping[int, float], epochs: int) -> tuple[float, float]:
    """The score after so many epochs by the power law c + a · epoch⁻ᵇ that fits best, and the
    standard error of that prediction: the further from the known epochs, the larger."""
    scored = sorted(curve)
    values = [curve[epoch] for epoch in scored]
    return min(
        _extrapolated([_bent(epoch + 1, power) for epoch in scored], values, _bent(epochs, power))
        for power in _POWERS
    )[1:]


def _bent(epochs: float, power: float) -> float:
    return float(epochs**-power) if power else -math.log(epochs)


def _extrapolated(
    at: Sequence[float], values: Sequence[float], to: float
) -> tuple[float, float, float]:
    """Of the least-squares line: sum of squares about it, its value at `to`, and the standard error
    of an observation there."""
    mean_x, mean_y = sum(at) / len(at), sum(values) / len(values)
    spread = sum((x - mean_x) ** 2 for x in at)
    slope = sum((x - mean_x) * (y - mean_y) for x, y in zip(at, values, strict=True)) / spread
    predicted = mean_y + slope * (to - mean_x)
    squares = sum((mean_y + slope * (x - mean_x) - y) ** 2 for x, y in zip(at, values, strict=True))
    leverage = 1 + 1 / len(at) + (to - mean_x) ** 2 / spread
    return squares, predicted, math.sqrt(squares / max(len(at) - 3, 1) * leverage)
