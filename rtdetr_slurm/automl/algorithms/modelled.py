"""Draws that go by the results of trainings of which most were stopped early (BOHB: Falkner et al.,
2018)."""

from __future__ import annotations

import random
from collections.abc import Sequence

from rtdetr_slurm.automl.algorithms.lineage import lineages
from rtdetr_slurm.automl.draws import Values, spread_draws
from rtdetr_slurm.automl.history import TrialRecord
from rtdetr_slurm.automl.sampling import model_draw
from rtdetr_slurm.plan.search import Search

_SPREAD_SHARE = 1 / 3
"""Of the draws, how many go by no results, in case early ones mislead the model."""


def draw_by_rungs(
    search: Search, rungs: Sequence[int], number: int, trials: Sequence[TrialRecord]
) -> Values:
    """What the model proposes as a trial; of every three one that goes by no results."""
    if random.Random(f"{search.seed}/{number}/spread").random() < _SPREAD_SHARE:
        return spread_draws(search, range(number, number + 1))[0]
    return model_draw(search, number, as_compared(search, rungs, trials))


def as_compared(
    search: Search, rungs: Sequence[int], trials: Sequence[TrialRecord]
) -> list[TrialRecord]:
    """Trainings with the scores that they had at one and the same rung: the last one, or the end,
    that enough have come to. One that was merely spared the rungs would else pass for better than
    those that did well at them. What was stopped before is worse than all of those."""
    everyone, objective = lineages(trials), search.objective
    enough = max(len(search.space) + 2, len(everyone) // (search.reduction_factor + 1))
    compared = next(
        (
            epochs
            for epochs in (search.epochs, *reversed(rungs))
            if sum(one.best_at(epochs, objective) is not None for one in everyone) >= enough
        ),
        rungs[0],
    )
    return [one.merged(objective, compared) for one in everyone]
