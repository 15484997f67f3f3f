"""The algorithm of a search, by its name."""

from __future__ import annotations

from rtdetr_slurm.automl.algorithms.base import (
    Algorithm,
    Bayesian,
    GridSearch,
    RandomSearch,
    SpreadSearch,
)
from rtdetr_slurm.automl.algorithms.halving import BOHB, DEHB, Halving, Hyperband, HyperbandES
from rtdetr_slurm.automl.algorithms.pbt import PBT
from rtdetr_slurm.errors import RequestError
from rtdetr_slurm.plan.search import Search

_BY_NAME: dict[str, type[Algorithm]] = {
    "bayesian": Bayesian,
    "random": RandomSearch,
    "grid": GridSearch,
    "qmc": SpreadSearch,
    "asha": Halving,
    "hyperband": Hyperband,
    "hyperband_es": HyperbandES,
    "bohb": BOHB,
    "dehb": DEHB,
    "pbt": PBT,
}


def algorithm_of(search: Search) -> Algorithm:
    """
    Raises:
        RequestError: the algorithm cannot do what the search asks for.
    """
    kind = _BY_NAME[search.algorithm]
    if len(search.objectives) > 1 and issubclass(kind, Halving | PBT):
        raise RequestError(
            f"{search.algorithm} stops trials by one metric, which would lose those that are good "
            "in another: with several objectives take the algorithm bayesian, random, grid or qmc"
        )
    return kind(search)
