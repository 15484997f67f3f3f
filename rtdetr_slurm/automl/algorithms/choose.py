"""The algorithm of a search, by its name."""

from __future__ import annotations

from rtdetr_slurm.automl.algorithms.base import (
    Algorithm,
    Bayesian,
    GridSearch,
    RandomSearch,
    SpreadSearch,
)
from rtdetr_slurm.plan.search import Search

_BY_NAME: dict[str, type[Algorithm]] = {
    "bayesian": Bayesian,
    "random": RandomSearch,
    "grid": GridSearch,
    "qmc": SpreadSearch,
}


def algorithm_of(search: Search) -> Algorithm:
    """
    Raises:
        RequestError: the algorithm cannot do what the search asks for.
    """
    return _BY_NAME[search.algorithm](search)
