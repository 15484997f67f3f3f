"""Asynchronous successive halving: of all that have come to a rung, the best fraction goes on.

Nobody waits for a rung to fill: a trial that arrives is judged by those that were there before it.
It stops where it is not among the best of them, and is continued from its checkpoint as soon as it
is, because others have arrived that were worse.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

from rtdetr_slurm.automl.algorithms.base import Algorithm, Continuation, first_spread
from rtdetr_slurm.automl.algorithms.evolution import evolved_draw
from rtdetr_slurm.automl.algorithms.extrapolation import hopeless
from rtdetr_slurm.automl.algorithms.lineage import Lineage, lineages, ranked, step_name
from rtdetr_slurm.automl.algorithms.modelled import draw_by_rungs
from rtdetr_slurm.automl.draws import Values, spread_draws
from rtdetr_slurm.automl.history import TrialRecord, TrialState
from rtdetr_slurm.errors import RequestError
from rtdetr_slurm.plan.search import Search


def rungs(search: Search) -> list[int]:
    """Epochs after which it is decided who goes on."""
    found, epochs = [], search.min_epochs
    while epochs < search.epochs:
        found.append(epochs)
        epochs *= search.reduction_factor
    return found


class Halving(Algorithm):
    """asha: every trial meets every rung. The draws go by the results."""

    def __init__(self, search: Search) -> None:
        super().__init__(search)
        self.rungs = rungs(search)
        if not self.rungs:
            raise RequestError(
                f"{search.algorithm} stops trials after {search.min_epochs} epochs or more, and "
                f"train.num_epochs is {search.epochs}: train longer, lower automl.min_epochs, or "
                "take the algorithm bayesian"
            )

    def fixed(self, numbers: range, known: Sequence[Values]) -> list[Values | None]:  # noqa: ARG002
        return first_spread(self.search, numbers)

    def draw(self, number: int, trials: Sequence[TrialRecord]) -> Values:
        return draw_by_rungs(self.search, self.rungs, number, trials)

    def goes_on(self, trial: TrialRecord, trials: Sequence[TrialRecord]) -> bool:
        everyone = lineages(trials)
        own = next(one for one in everyone if trial in one.trials)
        bracket = self.bracket(own.root)
        rivals = [one for one in everyone if self.bracket(one.root) == bracket]
        scored = max(trial.curve)
        return self._last_hope(everyone, own) is own or all(
            own in self._best(rung, rivals)
            for rung in self.rungs[bracket:]
            if own.scored_at(rung) == scored
        )

    def continuation(self, trials: Sequence[TrialRecord]) -> Continuation | None:
        everyone = lineages(trials)
        for at in reversed(range(len(self.rungs))):
            for bracket in range(at + 1):
                rivals = [one for one in everyone if self.bracket(one.root) == bracket]
                for one in self._best(self.rungs[at], rivals):
                    if (
                        one.stopped
                        and self._came(one) == at + 1
                        and self.may_continue(one, everyone)
                    ):
                        return self._continued(one)
        last = self._last_hope(everyone)
        return None if last is None else self._continued(last)

    def may_continue(self, one: Lineage, everyone: Sequence[Lineage]) -> bool:  # noqa: ARG002
        """Whether a stopped training that is among the best of its rung is continued."""
        return True

    def bracket(self, root: int) -> int:  # noqa: ARG002
        """How many of the first rungs a trial is spared."""
        return 0

    def _came(self, one: Lineage) -> int:
        """How many rungs it came to."""
        return sum(one.scored_at(rung) is not None for rung in self.rungs)

    def _continued(self, one: Lineage) -> Continuation:
        step = step_name(one.root, self.rungs[self._came(one) - 1])
        return Continuation(step, one.checkpoint(max(one.curve)), one.last.values)

    def _last_hope(
        self, everyone: Sequence[Lineage], running: Lineage | None = None
    ) -> Lineage | None:
        """Where nothing else is left to do and nothing was trained to its end, because so few came
        to the last rungs: the best of those that came furthest."""
        left = (TrialState.WAITING, TrialState.RUNNING, TrialState.COMPLETE)
        if any(one.last.state in left for one in everyone if one is not running):
            return None
        able = [one for one in everyone if (one.stopped or one is running) and self._came(one)]
        furthest = max(map(self._came, able), default=0)
        rung = self.rungs[furthest - 1]
        objective = self.search.objective
        scores = [
            (one, one.best_at(rung, objective)) for one in able if self._came(one) == furthest
        ]
        order = ranked([(one, s) for one, s in scores if s is not None], objective)
        return order[0] if order else None

    def _best(self, rung: int, rivals: Sequence[Lineage]) -> list[Lineage]:
        """Those of a bracket that go on from a rung, the best first."""
        scores = [(one, one.best_at(rung, self.search.objective)) for one in rivals]
        there = [(one, score) for one, score in scores if score is not None]
        return ranked(there, self.search.objective)[: len(there) // self.search.reduction_factor]


class BOHB(Halving):
    """Halving in brackets: some trials are judged early, some late, some never, in case early
    scores mislead. They are dealt out so that a bracket that trains its trials longer has fewer."""

    def __init__(self, search: Search) -> None:
        super().__init__(search)
        self._deal = _deal(len(self.rungs) + 1, search.reduction_factor)

    def bracket(self, root: int) -> int:
        return self._deal[root % len(self._deal)]


class Hyperband(BOHB):
    """The same, with draws that go by no results."""

    def fixed(self, numbers: range, known: Sequence[Values]) -> list[Values | None]:  # noqa: ARG002
        return [*spread_draws(self.search, numbers)]


class DEHB(BOHB):
    """Hyperband whose draws evolve from the best trainings so far."""

    def fixed(self, numbers: range, known: Sequence[Values]) -> list[Values | None]:  # noqa: ARG002
        first = range(numbers.start, max(numbers.start, min(self.search.population, numbers.stop)))
        return [*spread_draws(self.search, first), *[None] * (len(numbers) - len(first))]

    def draw(self, number: int, trials: Sequence[TrialRecord]) -> Values:
        objective = self.search.objective
        return evolved_draw(self.search, number, [o.merged(objective) for o in lineages(trials)])


class HyperbandES(Hyperband):
    """Hyperband that also stops, between rungs, a training whose curve will not reach the best
    score so far."""

    def goes_on(self, trial: TrialRecord, trials: Sequence[TrialRecord]) -> bool:
        everyone = lineages(trials)
        own = next(one for one in everyone if trial in one.trials)
        return self.may_continue(own, everyone) and super().goes_on(trial, trials)

    def may_continue(self, one: Lineage, everyone: Sequence[Lineage]) -> bool:
        others = [score for o in everyone if o is not one for score in o.curve.values()]
        return not hopeless(one.curve, others, self.search)


def _deal(brackets: int, factor: int) -> list[int]:
    """The brackets of as many trials as one round of Hyperband has, mixed as evenly as can be: the
    first bracket is judged at every rung, the last at none."""
    sizes = [
        math.ceil(brackets / (brackets - b) * factor ** (brackets - 1 - b)) for b in range(brackets)
    ]
    total, counts, dealt = sum(sizes), [0] * brackets, list[int]()
    while len(dealt) < total:
        due = [size * (len(dealt) + 1) / total - n for size, n in zip(sizes, counts, strict=True)]
        dealt.append(due.index(max(due)))
        counts[dealt[-1]] += 1
    return dealt
