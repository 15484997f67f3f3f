"""A small search, and trainings for it that take no time."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from rtdetr_slurm.automl.history import TrialState
from rtdetr_slurm.automl.study import Assignment, Study
from rtdetr_slurm.plan.search import Objective, Parameter, Search

LR = Parameter("train.optim.lr", "float", 1e-4, low=1e-5, high=1e-2, log=True)
LAYERS = Parameter("model.dec_layers", "int", 6, low=1, high=6)
BATCH = Parameter("dataset.batch_size", "categorical", 4, choices=(2, 4, 8))


def search(folder: Path, algorithm: Any = "random", **fields: Any) -> Search:
    given: dict[str, Any] = {
        "seed": 1,
        "space": (LR, LAYERS, BATCH),
        "objectives": (Objective("val_mAP", "maximize"),),
        "trials": 8,
        "epochs": 9,
    }
    return Search(str(folder), algorithm, **{**given, **fields})


def score(values: Any) -> float:
    """Best at a learning rate of 1e-3 and many layers."""
    return 1 - abs(math.log10(values[LR.field]) + 3) / 3 + values[LAYERS.field] / 100


def train(study: Study, epochs: int = 1) -> Any:
    """Take one trial, and train it as far as it is let."""
    assignment = study.take()
    assert assignment is not None
    for epoch in range(epochs):
        if not study.report(assignment.number, epoch, {"val_mAP": score(assignment.values)}):
            study.prune(assignment.number, {})
            return assignment
    study.complete(assignment.number, {"seconds": 1.5})
    return assignment


def waiting(study: Study) -> int:
    """How many trials wait."""
    return sum(trial.state is TrialState.WAITING for trial in study.trials())


def memory() -> Any:
    from optuna.storages import InMemoryStorage

    return InMemoryStorage()


def drive(study: Study, workers: int, value: Callable[[Mapping[str, Any], int], float]) -> int:
    """Work a search off, all workers an epoch at a time; returns how many epochs were trained.

    Args:
        value: deciding metric by values and zero-based epoch.
    """
    trained = 0
    running: list[tuple[Assignment, int]] = []
    while True:
        while len(running) < workers and (taken := study.take()) is not None:
            running.append((taken, taken.continues.epoch + 1 if taken.continues else 0))
        if not running:
            assert study.is_over()
            return trained
        going = []
        for one, epoch in running:
            trained += 1
            goes_on = study.report(one.number, epoch, {"val_mAP": value(one.values, epoch)})
            if not goes_on:
                study.prune(one.number, {})
            elif epoch + 1 == one.epochs:
                study.complete(one.number, {})
            else:
                going.append((one, epoch + 1))
        running = going
