"""Trials that go on from one another, seen as one training: what the algorithms that stop trials
and continue them later go by."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property

from rtdetr_slurm.automl.history import Continued, TrialRecord, TrialState, best_epoch
from rtdetr_slurm.plan.search import Objective


@dataclass(frozen=True)
class Lineage:
    """A trial of the budget, and those that continued it, in order."""

    trials: tuple[TrialRecord, ...]

    @property
    def root(self) -> int:
        return self.trials[0].number

    @property
    def last(self) -> TrialRecord:
        return self.trials[-1]

    @cached_property
    def curve(self) -> dict[int, float]:
        """Of the whole training, by epoch, in order."""
        return {epoch: value for trial in self.trials for epoch, value in trial.curve.items()}

    @property
    def known(self) -> bool:
        """Whether it is of another search."""
        return self.last.finished and not self.curve

    @property
    def stopped(self) -> bool:
        """Whether it ended before its time, and could go on."""
        return self.last.state is TrialState.PRUNED

    def scored_at(self, epochs: int) -> int | None:
        """The first scored epoch when it had trained so many; None: it has not yet."""
        return next((epoch for epoch in self.curve if epoch + 1 >= epochs), None)

    def best_at(self, epochs: int, objective: Objective) -> float | None:
        """The best score of the epochs up to there; None: it has not come so far. A trial of
        another search, of which nothing but the result is known, has that at all times."""
        if self.known:
            return self.last.scores.get(objective.metric)
        last = self.scored_at(epochs)
        if last is None:
            return None
        best = max if objective.direction == "maximize" else min
        return best(value for epoch, value in self.curve.items() if epoch <= last)

    def checkpoint(self, epoch: int) -> Continued:
        """Of an epoch that was scored."""
        holder = next(trial for trial in reversed(self.trials) if epoch in trial.curve)
        return Continued(holder.number, epoch)

    def merged(self, objective: Objective, epochs: int | None = None) -> TrialRecord:
        """As if it had been one trial.

        Args:
            epochs: as if it had been stopped there, if it came so far.
        """
        if self.known:
            return self.last
        curve, state = self.curve, self.last.state
        last = None if epochs is None else self.scored_at(epochs)
        if last is not None and last + 1 < self.last.epochs and state is not TrialState.FAILED:
            curve = {epoch: value for epoch, value in curve.items() if epoch <= last}
            state = TrialState.PRUNED
        best = best_epoch(curve, objective)
        scores = {} if best is None else {objective.metric: curve[best]}
        return replace(
            self.last, number=self.root, state=state, curve=curve, best_epoch=best, scores=scores
        )


def step_name(root: int, epochs: int) -> str:
    """What continues a lineage that has trained so many epochs: TrialRecord.step."""
    return f"{root}@{epochs}"


def lineages(trials: Sequence[TrialRecord]) -> list[Lineage]:
    """By their roots."""
    found: dict[int, list[TrialRecord]] = {}
    for trial in trials:
        root = int(trial.step.partition("@")[0]) if trial.step else trial.number
        found.setdefault(root, []).append(trial)
    return [Lineage(tuple(found[root])) for root in sorted(found)]


def ranked(scores: Sequence[tuple[Lineage, float]], objective: Objective) -> list[Lineage]:
    """The best first; of equals the earlier."""
    sign = -1 if objective.direction == "maximize" else 1
    return [one for one, _ in sorted(scores, key=lambda pair: (sign * pair[1], pair[0].root))]
