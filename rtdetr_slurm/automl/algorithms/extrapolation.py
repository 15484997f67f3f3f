"""Where a learning curve leads to."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from itertools import accumulate

from rtdetr_slurm.plan.search import Objective, Search

_FEWEST = 4
"""Scored epochs below which three constants fit anything."""
_POWERS = (0.25, 0.5, 0.75, 1.0, 1.5, 2.0)
_ERRORS = 2.0
"""How many times its error a prediction is given the benefit of."""


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
    standard deviation of the curve about it."""
    values = [curve[epoch] for epoch in sorted(curve)]
    best = (math.inf, 0.0)
    for power in _POWERS:
        at = [(epoch + 1.0) ** -power for epoch in sorted(curve)]
        a, c = _line(at, values)
        squares = sum((c + a * x - y) ** 2 for x, y in zip(at, values, strict=True))
        best = min(best, (squares, c + a * float(epochs) ** -power))
    return best[1], math.sqrt(best[0] / max(len(values) - 3, 1))


def _line(at: Sequence[float], values: Sequence[float]) -> tuple[float, float]:
    """Slope and intercept by least squares."""
    mean_x, mean_y = sum(at) / len(at), sum(values) / len(values)
    spread = sum((x - mean_x) ** 2 for x in at)
    slope = sum((x - mean_x) * (y - mean_y) for x, y in zip(at, values, strict=True)) / spread
    return slope, mean_y - slope * mean_x
