"""Differential evolution (rand/1/bin) of a search space's unit cube."""

from __future__ import annotations

import random
from collections.abc import Sequence

from rtdetr_slurm.automl.draws import Values, contains, quantile_of, random_draw, value_at
from rtdetr_slurm.automl.history import TrialRecord
from rtdetr_slurm.plan.search import Search

_MUTATION = 0.5
_CROSSOVER = 0.5


def evolved_draw(search: Search, number: int, trials: Sequence[TrialRecord]) -> Values:
    """A cross of one of the best trials with a mutant of three others; at random while there are
    fewer than four. A training that went further is better than one that was stopped before."""
    chance = random.Random(f"{search.seed}/{number}/evolution")
    sign = 1 if search.objective.direction == "maximize" else -1
    known = [
        trial
        for trial in trials
        if trial.finished
        and search.objective.metric in trial.scores
        and all(
            p.field in trial.values and contains(p, trial.values[p.field]) for p in search.space
        )
    ]
    known.sort(key=lambda t: (_trained(t, search), sign * t.scores[search.objective.metric]))
    best = known[-search.population :]
    if len(best) < 4:
        return random_draw(search, number)
    target, *mixed = (
        [quantile_of(p, trial.values[p.field]) for p in search.space]
        for trial in chance.sample(best, 4)
    )
    certain = chance.randrange(len(search.space))
    point = [
        _reflected(a + _MUTATION * (b - c))
        if index == certain or chance.random() < _CROSSOVER
        else own
        for index, (own, a, b, c) in enumerate(zip(target, *mixed, strict=True))
    ]
    return {p.field: value_at(p, at) for p, at in zip(search.space, point, strict=True)}


def _trained(trial: TrialRecord, search: Search) -> int:
    """Epochs; a trial of an earlier search was trained to its end."""
    return max(trial.curve, default=search.epochs - 1)


def _reflected(at: float) -> float:
    """Into 0 to 1; not pushed onto the bounds, where a population would stick."""
    at = abs(at)
    return 2 - at if at > 1 else at
