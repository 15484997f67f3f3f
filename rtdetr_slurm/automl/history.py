"""The trials of a search as plain values. Standard library only."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from enum import Enum
from typing import Any

from rtdetr_slurm.plan.search import Objective


class TrialState(str, Enum):
    WAITING = "waiting"
    RUNNING = "running"
    COMPLETE = "complete"
    """Trained to its last epoch."""
    PRUNED = "pruned"
    """Stopped by the algorithm."""
    FAILED = "failed"


@dataclass(frozen=True)
class Continued:
    """Whose checkpoint a trial begins with.

    Attributes:
        epoch: zero-based, of the checkpoint.
    """

    trial: int
    epoch: int


@dataclass(frozen=True)
class Assignment:
    """A trial as somebody is to train it.

    Attributes:
        values: effective ones, by field of the spec.
        epochs: to train to, those of `continues` included.
    """

    number: int
    values: Mapping[str, Any]
    epochs: int
    continues: Continued | None = None


@dataclass(frozen=True)
class TrialRecord:
    """What is known of a trial.

    Attributes:
        values: effective ones, by field; of one that waits: those that are fixed already.
        adjusted: by field: why its value is not the one that was drawn.
        curve: deciding metric by zero-based epoch; of a continued trial its own epochs only.
        scores: of every objective that was reported, at the best epoch.
        epochs: that it was to train to.
        step: what it is to the algorithm that continued another trial with it; no other trial of
            the search has the same; empty for a trial of the budget.
        failure: class and evidence.
        facts: what whoever ran it noted.
    """

    number: int
    state: TrialState
    values: Mapping[str, Any]
    epochs: int
    adjusted: Mapping[str, str] = field(default_factory=dict)
    curve: Mapping[int, float] = field(default_factory=dict)
    scores: Mapping[str, float] = field(default_factory=dict)
    best_epoch: int | None = None
    continues: Continued | None = None
    step: str = ""
    failure: tuple[str, str] | None = None
    facts: Mapping[str, Any] = field(default_factory=dict)
    started: datetime | None = None
    ended: datetime | None = None

    @property
    def finished(self) -> bool:
        """Whether it ended with a result."""
        return self.state in (TrialState.COMPLETE, TrialState.PRUNED)


def best_epoch(curve: Mapping[int, float], objective: Objective) -> int | None:
    """The epoch with the best value, the earliest of equals; None where nothing was scored."""
    best: int | None = None
    for epoch in sorted(curve):
        if best is None or objective.better(curve[epoch], curve[best]):
            best = epoch
    return best


def best_trial(trials: Iterable[TrialRecord], objective: Objective) -> TrialRecord | None:
    """The finished trial with the best score, the earliest of equals."""
    best: TrialRecord | None = None
    for trial in trials:
        if not trial.finished or objective.metric not in trial.scores:
            continue
        score = trial.scores[objective.metric]
        if best is None or objective.better(score, best.scores[objective.metric]):
            best = trial
    return best


def pareto_front(
    trials: Iterable[TrialRecord], objectives: Sequence[Objective]
) -> list[TrialRecord]:
    """The finished trials that no other is better than in one objective and as good in the rest."""
    scored = [
        trial
        for trial in trials
        if trial.finished and all(objective.metric in trial.scores for objective in objectives)
    ]
    return [
        trial
        for trial in scored
        if not any(_dominates(other, trial, objectives) for other in scored)
    ]


def _dominates(a: TrialRecord, b: TrialRecord, objectives: Sequence[Objective]) -> bool:
    pairs = [(o, a.scores[o.metric], b.scores[o.metric]) for o in objectives]
    return any(o.better(x, y) for o, x, y in pairs) and not any(o.better(y, x) for o, x, y in pairs)
