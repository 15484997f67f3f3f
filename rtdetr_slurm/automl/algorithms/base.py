"""What a study asks its algorithm, and the algorithms that train every trial to its end."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from rtdetr_slurm.automl.draws import Values, grid, random_draw, spec_values, spread_draws
from rtdetr_slurm.automl.history import Continued, TrialRecord
from rtdetr_slurm.automl.sampling import model_draw
from rtdetr_slurm.plan.search import Search


@dataclass(frozen=True)
class Continuation:
    """A trial that goes on with the checkpoint of another, beyond the trials of the budget.

    Attributes:
        step: as TrialRecord.step.
        values: what it trains with.
    """

    step: str
    continues: Continued
    values: Values


class Algorithm:
    """Everything is asked with all trials of the search, and answered from them alone: whoever
    asks, and in whichever process, gets the same answer."""

    awaits_others = False
    """Whether what can begin next is up to trials that still run, so that a worker without one
    waits for them."""

    def __init__(self, search: Search) -> None:
        self.search = search

    def fixed(self, numbers: range, known: Sequence[Values]) -> list[Values | None]:
        """Draws of the trials with these numbers, of which the first is not 0; None for one that
        is drawn when it begins; fewer than `numbers` where there is nothing more to try.

        Args:
            known: what was drawn for the trials before.
        """
        raise NotImplementedError

    def draw(self, number: int, trials: Sequence[TrialRecord]) -> Values:
        """Values for a trial that has none yet."""
        return model_draw(self.search, number, trials)

    def goes_on(self, trial: TrialRecord, trials: Sequence[TrialRecord]) -> bool:  # noqa: ARG002
        """Whether a running trial goes on after the last epoch of its curve."""
        return True

    def kept(self, curve: Mapping[int, float]) -> set[int]:  # noqa: ARG002
        """Of a trial with that curve so far, the epochs besides its best and its last whose
        checkpoints another trial may begin with."""
        return set()

    def continuation(self, trials: Sequence[TrialRecord]) -> Continuation | None:  # noqa: ARG002
        """What can be continued now, and is not yet."""
        return None


class RandomSearch(Algorithm):
    def fixed(self, numbers: range, known: Sequence[Values]) -> list[Values | None]:  # noqa: ARG002
        return [random_draw(self.search, number) for number in numbers]


class SpreadSearch(Algorithm):
    """Quasi-random."""

    def fixed(self, numbers: range, known: Sequence[Values]) -> list[Values | None]:  # noqa: ARG002
        return [*spread_draws(self.search, numbers)]


class GridSearch(Algorithm):
    """A finer grid takes the place of the last one's rest where more trials are allowed."""

    def fixed(self, numbers: range, known: Sequence[Values]) -> list[Values | None]:
        most = numbers.stop - 1  # the spec's own values come first
        tried = [*known, spec_values(self.search.space)]
        points = [point for point in grid(self.search, most) if point not in tried]
        return [*points[: len(numbers)]]


class Bayesian(Algorithm):
    """Begins with a quasi-random sequence, goes on with what the model of the results proposes."""

    def fixed(self, numbers: range, known: Sequence[Values]) -> list[Values | None]:  # noqa: ARG002
        return first_spread(self.search, numbers)


_SPREAD_FIRST = 10


def first_spread(search: Search, numbers: range) -> list[Values | None]:
    """Draws that a model begins with, up to half of the search's trials; the others are open."""
    first = range(numbers.start, min(max(min(_SPREAD_FIRST, search.trials // 2), 2), numbers.stop))
    return [*spread_draws(search, first), *[None] * (len(numbers) - len(first))]
