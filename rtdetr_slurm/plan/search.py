"""A hyper-parameter search as plain frozen values, part of a plan. Standard library only."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any, Literal

from rtdetr_slurm.contract import Algorithm, Direction, Retention
from rtdetr_slurm.errors import RequestError

_MOST_TRIALS = 10_000


@dataclass(frozen=True)
class Parameter:
    """A field of the spec that is searched.

    Attributes:
        field: dotted path in the spec.
        default: the spec's own value, with which the first trial runs.
        low, high: of a number, both inclusive.
        log: whether it is searched on a logarithmic scale.
        step: distance between two values of an integer.
        choices: of a categorical: its values, plain data.
        weights: of a categorical: how likely each choice is when nothing is known; empty: equally.
        at_most: dotted path of the field whose value it may not exceed.
    """

    field: str
    kind: Literal["float", "int", "categorical"]
    default: Any
    low: float | None = None
    high: float | None = None
    log: bool = False
    step: int = 1
    choices: tuple[Any, ...] = ()
    weights: tuple[float, ...] = ()
    at_most: str | None = None

    def __post_init__(self) -> None:
        if self.kind == "categorical":
            if len(self.choices) < 2:
                raise RequestError(f"{self.field}: a search needs two values or more")
            if self.weights and len(self.weights) != len(self.choices):
                raise RequestError(f"{self.field}: {len(self.choices)} values need as many weights")
            return
        low, high = self.low, self.high
        if low is None or high is None or not (math.isfinite(low) and math.isfinite(high)):
            raise RequestError(f"{self.field}: a search needs two finite bounds")
        if not low < high or (self.log and low <= 0) or self.step < 1:
            raise RequestError(f"{self.field}: {low:g} to {high:g} is no range to search")


@dataclass(frozen=True)
class Objective:
    """What a search is after. The first of several decides where one trial must be chosen.

    Attributes:
        metric: a KPI of status.json.
    """

    metric: str
    direction: Direction

    def better(self, a: float, b: float) -> bool:
        """Whether `a` is better than `b`."""
        return a > b if self.direction == "maximize" else a < b


@dataclass(frozen=True)
class Search:
    """What the tasks of a stage do instead of running its action once: they take trials of a study
    and train those, one after the other, until none is left.

    Attributes:
        folder: absolute: holds the study's journal, trials/<number>/ and what becomes of them.
        seed: of whatever is drawn.
        trials: that the study begins with; `extend` adds to them.
        gpu_hours: after which no trial begins; None: no limit.
        deadline: ISO 8601, after which no trial begins; None: none.
        epochs: of a training that nobody stops.
        reduction_factor: of the multi-fidelity algorithms: one in so many goes on.
        min_epochs: of those: what every trial gets.
        population: of pbt and dehb: how many are kept going.
        interval: of pbt: epochs of a generation.
        retention: whose checkpoints are left in the end.
        keep: of retention `topk`: how many trials'.
        warm_start: journals of earlier searches whose trials are known from the start.
        python_path: folders that a compute node's Python finds Optuna in.
    """

    folder: str
    algorithm: Algorithm
    seed: int
    space: tuple[Parameter, ...]
    objectives: tuple[Objective, ...]
    trials: int
    epochs: int
    gpu_hours: float | None = None
    deadline: str | None = None
    reduction_factor: int = 3
    min_epochs: int = 1
    population: int = 8
    interval: int = 5
    retention: Retention = "best"
    keep: int = 5
    warm_start: tuple[str, ...] = ()
    python_path: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if not Path(self.folder).is_absolute():
            raise RequestError(f"the folder of a search, {self.folder!r}, is not absolute")
        if not 1 <= self.trials <= _MOST_TRIALS:
            raise RequestError(f"trials: found {self.trials}; expected 1 to {_MOST_TRIALS}")
        if self.reduction_factor < 2 or min(self.min_epochs, self.population, self.interval) < 1:
            raise RequestError("a search stops one in two or more, after an epoch or more")
        if not self.space or not self.objectives:
            raise RequestError("a search needs something to search, and something to go by")
        _distinct("fields", [parameter.field for parameter in self.space])
        _distinct("objectives", [objective.metric for objective in self.objectives])
        if self.deadline is not None:
            datetime.fromisoformat(self.deadline)

    @property
    def objective(self) -> Objective:
        """The one that decides."""
        return self.objectives[0]

    @property
    def path(self) -> Path:
        return Path(self.folder)

    @property
    def trials_folder(self) -> Path:
        """What the folders of the trials are in."""
        return self.path / TRIALS_DIR


BEST, EVALUATE_BEST, BASELINE = "best", "evaluate_best", "baseline"
"""Stages that a search brings with it: what finds its best trial, what scores that, and what scores
the weights that every trial starts from."""
TRIALS_DIR, WORKERS_DIR = "trials", "workers"
"""In the folder of a search: what belongs to its trials, and to the tasks that train them."""


def _distinct(what: str, names: Sequence[str]) -> None:
    if len({*names}) < len(names):
        raise RequestError(f"a search has {what} twice: {', '.join(names)}")
