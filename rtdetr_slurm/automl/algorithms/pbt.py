"""Population-based training: every few epochs the worst of a population go on as a better one, from
its checkpoint, with its values changed a little."""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from typing import Any

from rtdetr_slurm.automl.algorithms.base import Algorithm, Continuation
from rtdetr_slurm.automl.algorithms.lineage import Lineage, lineages, ranked, step_name
from rtdetr_slurm.automl.draws import Values, bounds, contains, rounded, spread_draws, value_at
from rtdetr_slurm.automl.history import TrialRecord, TrialState
from rtdetr_slurm.errors import RequestError
from rtdetr_slurm.plan.search import Parameter, Search

_FRACTION = 4
"""One in so many is replaced, and as many can be what replaces it."""
_CHANGE = 1.2
_ANEW = 0.2
"""How often a value is drawn anew instead of changed."""
_SHAPES = "model."
"""Fields that a checkpoint's weights depend on: who goes on from it keeps them."""


class PBT(Algorithm):
    """The trials of the budget form populations in their order. A member stops at a generation's
    end where too few of the others are there to be compared with, or where it is among the worst;
    it goes on, as itself or as a better one, when half of the others are there."""

    awaits_others = True

    def __init__(self, search: Search) -> None:
        super().__init__(search)
        self.ends: list[int] = [*range(search.interval, search.epochs, search.interval)]
        if not self.ends:
            raise RequestError(
                f"pbt compares trials every {search.interval} epochs, and train.num_epochs is "
                f"{search.epochs}: train longer, or lower automl.interval"
            )

    def fixed(self, numbers: range, known: Sequence[Values]) -> list[Values | None]:  # noqa: ARG002
        return [*spread_draws(self.search, numbers)]

    def goes_on(self, trial: TrialRecord, trials: Sequence[TrialRecord]) -> bool:
        [(own, members)] = [
            (one, members)
            for members in self._populations(trials)
            for one in members
            if trial in one.trials
        ]
        scored = max(trial.curve)
        [*ended] = (end for end in self.ends if own.scored_at(end) == scored)
        return all(
            self._comparable(members, end) and own not in self._worst(members, end) for end in ended
        )

    def kept(self, curve: Mapping[int, float]) -> set[int]:
        firsts = (
            min((epoch for epoch in curve if epoch + 1 >= e), default=None) for e in self.ends
        )
        return {epoch for epoch in firsts if epoch is not None}

    def continuation(self, trials: Sequence[TrialRecord]) -> Continuation | None:
        steps = {trial.step for trial in trials}
        found = [
            (end, one, members)
            for members in self._populations(trials)
            for one in members
            if (end := self._awaits(one)) is not None
            and step_name(one.root, end) not in steps
            and (self._comparable(members, end) or not _busy(members))
        ]
        for end, one, members in sorted(found, key=lambda item: (item[0], item[1].root)):
            step = step_name(one.root, end)
            if one.stopped and one not in self._worst(members, end):
                return Continuation(step, one.checkpoint(max(one.curve)), one.last.values)
            better = self._ranked(members, end)[: max(1, len(members) // _FRACTION)]
            better = [other for other in better if other is not one]
            if better:
                source = random.Random(f"{self.search.seed}/{step}").choice(better)
                epoch = source.scored_at(end)
                assert epoch is not None
                values = changed(self.search, _values_at(source, epoch), step)
                return Continuation(step, source.checkpoint(epoch), values)
        return None

    def _populations(self, trials: Sequence[TrialRecord]) -> list[list[Lineage]]:
        members, size = lineages(trials), self.search.population
        return [members[start : start + size] for start in range(0, len(members), size)]

    def _awaits(self, one: Lineage) -> int | None:
        """The end of the generation after which it is to go on; None: it runs, or is done. One that
        failed goes on after the generation that it failed in."""
        passed = [end for end in self.ends if one.scored_at(end) is not None]
        if one.stopped and passed:
            return passed[-1]
        if one.last.state is TrialState.FAILED and len(passed) < len(self.ends):
            return self.ends[len(passed)]
        return None

    def _ranked(self, members: Sequence[Lineage], end: int) -> list[Lineage]:
        """Those that came to a generation's end, by what they scored there, the best first."""
        there = [(one, one.scored_at(end)) for one in members]
        scores = [(one, one.curve[epoch]) for one, epoch in there if epoch is not None]
        return ranked(scores, self.search.objective)

    def _worst(self, members: Sequence[Lineage], end: int) -> list[Lineage]:
        there = self._ranked(members, end)
        return there[1:][-max(1, len(there) // _FRACTION) :]

    def _comparable(self, members: Sequence[Lineage], end: int) -> bool:
        return 2 * len(self._ranked(members, end)) >= len(members)


def _busy(members: Sequence[Lineage]) -> bool:
    return any(one.last.state in (TrialState.RUNNING, TrialState.WAITING) for one in members)


def _values_at(one: Lineage, epoch: int) -> Values:
    """What it was trained with then."""
    number = one.checkpoint(epoch).trial
    return next(trial.values for trial in one.trials if trial.number == number)


def changed(search: Search, values: Values, step: str) -> Values:
    """A fifth more or less, or the neighbouring choice, of whatever may change in a training."""
    chance = random.Random(f"{search.seed}/{step}/values")
    return {
        p.field: values[p.field]
        if p.field.startswith(_SHAPES) or not contains(p, values[p.field])
        else _changed(p, values[p.field], chance)
        for p in search.space
    }


def _changed(parameter: Parameter, value: Any, chance: random.Random) -> Any:
    if chance.random() < _ANEW:
        return value_at(parameter, chance.random())
    up = chance.random() < 0.5
    if parameter.kind == "categorical":
        at = parameter.choices.index(value) + (1 if up else -1)
        return parameter.choices[min(max(at, 0), len(parameter.choices) - 1)]
    low, high = bounds(parameter)
    if parameter.kind == "float":
        return rounded(parameter, min(max(value * _CHANGE if up else value / _CHANGE, low), high))
    steps = max(1, round(abs(value) * (_CHANGE - 1) / parameter.step))
    moved = value + (steps if up else -steps) * parameter.step
    return int(min(max(moved, low), high))
