"""Draws of a search space that depend on no result: a point of the unit cube → values of fields.

Optuna's own random and quasi-random samplers know no weights of choices, and leave choices out of a
quasi-random sequence; here every parameter is a quantile function of one coordinate.
"""

from __future__ import annotations

import itertools
import math
import random
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from rtdetr_slurm.errors import RequestError
from rtdetr_slurm.plan.search import Parameter, Search

Values = Mapping[str, Any]

_DIGITS = 4
"""Significant ones of a real number: more only make specs hard to read."""


# --- one parameter -------------------------------------------------------------------------
def value_at(parameter: Parameter, quantile: float) -> Any:
    """The value at a coordinate of 0 to 1."""
    if parameter.kind == "categorical":
        weights = parameter.weights or (1.0,) * len(parameter.choices)
        reached = itertools.accumulate(weights)
        index = sum(limit <= quantile * math.fsum(weights) for limit in reached)
        return parameter.choices[min(index, len(parameter.choices) - 1)]
    low, high = bounds(parameter)
    if parameter.kind == "float":
        return rounded(parameter, _between(low, high, quantile, parameter.log))
    if is_log(parameter):  # each integer holds as much as it would in a list of real numbers
        return int(min(max(round(_between(low - 0.5, high + 0.5, quantile, True)), low), high))
    steps = int(high - low) // parameter.step + 1
    return int(low) + parameter.step * min(int(quantile * steps), steps - 1)


def quantile_of(parameter: Parameter, value: Any) -> float:
    """A coordinate that `value_at` answers `value` for."""
    if parameter.kind == "categorical":
        weights = parameter.weights or (1.0,) * len(parameter.choices)
        index = parameter.choices.index(value)
        return (math.fsum(weights[:index]) + weights[index] / 2) / math.fsum(weights)
    low, high = bounds(parameter)
    if parameter.kind == "int" and is_log(parameter):
        low, high = low - 0.5, high + 0.5
    elif parameter.kind == "int":
        steps = int(high - low) // parameter.step + 1
        return (int(value - low) // parameter.step + 0.5) / steps
    if is_log(parameter):
        low, high, value = math.log(low), math.log(high), math.log(value)
    return float(min(max((value - low) / (high - low), 0.0), 1.0))


def bounds(parameter: Parameter) -> tuple[float, float]:
    """Of a number, both inclusive: the upper one of an integer is a whole number of steps up."""
    assert parameter.low is not None
    assert parameter.high is not None
    low, high = parameter.low, parameter.high
    if parameter.kind == "int":
        high = low + (high - low) // parameter.step * parameter.step
    return low, high


def is_log(parameter: Parameter) -> bool:
    """Integers in steps have none: their values do not lie on one."""
    return parameter.log and (parameter.kind == "float" or parameter.step == 1)


def rounded(parameter: Parameter, value: float) -> float:
    """A real number with few digits, still within the bounds."""
    low, high = bounds(parameter)
    return min(max(float(f"{value:.{_DIGITS}g}"), low), high)


def contains(parameter: Parameter, value: Any) -> bool:
    """Whether a value is one that the search could have drawn."""
    if parameter.kind == "categorical":
        return any(value == choice and type(value) is type(choice) for choice in parameter.choices)
    if isinstance(value, bool) or not isinstance(value, int | float):
        return False
    low, high = bounds(parameter)
    whole = parameter.kind == "float" or (value - low) % parameter.step == 0
    return low <= value <= high and whole


def _between(low: float, high: float, quantile: float, log: bool) -> float:
    if log:
        return math.exp(math.log(low) + quantile * (math.log(high) - math.log(low)))
    return low + quantile * (high - low)


# --- whole draws ---------------------------------------------------------------------------
def spec_values(space: Sequence[Parameter]) -> dict[str, Any]:
    """What the user's own spec has."""
    return {parameter.field: parameter.default for parameter in space}


def random_draw(search: Search, number: int) -> dict[str, Any]:
    """Drawn independently, by the trial's number alone."""
    return {
        parameter.field: value_at(
            parameter, random.Random(f"{search.seed}/{number}/{parameter.field}").random()
        )
        for parameter in search.space
    }


def spread_draws(search: Search, numbers: range) -> list[dict[str, Any]]:
    """Points of a scrambled Halton sequence: more even than independent ones, as long as it is."""
    axes = [
        (parameter, base, _shuffled_digits(f"{search.seed}/{parameter.field}", base))
        for parameter, base in zip(search.space, _primes(), strict=False)
    ]
    return [
        {
            parameter.field: value_at(parameter, _inverse(n, base, digits))
            for parameter, base, digits in axes
        }
        for n in numbers
    ]


def _inverse(number: int, base: int, digits: Sequence[Sequence[int]]) -> float:
    """The digits of a number, each replaced by another, read backwards behind the point."""
    at, scale = 0.0, 1.0
    for shuffled in digits:
        number, digit = divmod(number, base)
        scale /= base
        at += shuffled[digit] * scale
    return at


def _shuffled_digits(seed: str, base: int) -> list[list[int]]:
    """A permutation of the digits for each place, as many as a float holds."""
    chance = random.Random(seed)
    return [chance.sample(range(base), base) for _ in range(math.ceil(32 / math.log2(base)))]


def _primes() -> Iterator[int]:
    found: list[int] = []
    for number in itertools.count(2):
        if all(number % prime for prime in found):
            found.append(number)
            yield number


def grid(search: Search, most: int) -> list[dict[str, Any]]:
    """The finest grid of at most so many points, in an order that the seed decides.

    Choices all count; of a number as many values, evenly spread, both bounds included, as there is
    room for.

    Raises:
        RequestError: even two values of each number are too many.
    """
    counts = [_fewest(parameter) for parameter in search.space]
    if math.prod(counts) > most:
        raise RequestError(
            f"a grid over {len(counts)} parameters has {math.prod(counts)} points even with two "
            f"values of each number, and there is room for {most}: search fewer parameters, allow "
            "more trials, or take the algorithm qmc"
        )
    grown = True
    while grown:
        grown = False
        for index, parameter in enumerate(search.space):
            finer = [count + (at == index) for at, count in enumerate(counts)]
            if counts[index] < _most(parameter) and math.prod(finer) <= most:
                counts, grown = finer, True
    axes = [_axis(p, count) for p, count in zip(search.space, counts, strict=True)]
    points = [
        {p.field: value for p, value in zip(search.space, point, strict=True)}
        for point in itertools.product(*axes)
    ]
    random.Random(search.seed).shuffle(points)
    return points


def _fewest(parameter: Parameter) -> int:
    return len(parameter.choices) if parameter.kind == "categorical" else 2


def _most(parameter: Parameter) -> float:
    if parameter.kind == "categorical":
        return len(parameter.choices)
    low, high = bounds(parameter)
    return math.inf if parameter.kind == "float" else (high - low) // parameter.step + 1


def _axis(parameter: Parameter, count: int) -> list[Any]:
    if parameter.kind == "categorical":
        return list(parameter.choices)
    low, high = bounds(parameter)
    places = [_between(low, high, k / (count - 1), is_log(parameter)) for k in range(count)]
    if parameter.kind == "float":
        return [rounded(parameter, place) for place in places]
    steps = [round((place - low) / parameter.step) for place in places]
    return sorted({int(low) + step * parameter.step for step in steps})
