"""Draws that go by the results so far: Optuna's tree-structured Parzen estimator."""

from __future__ import annotations

import hashlib
import json
import warnings
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from rtdetr_slurm.automl.draws import bounds, contains, is_log, rounded
from rtdetr_slurm.automl.history import TrialRecord, TrialState
from rtdetr_slurm.automl.quiet import silence
from rtdetr_slurm.contract import FailureClass
from rtdetr_slurm.plan.search import Parameter, Search

if TYPE_CHECKING:
    from optuna.distributions import BaseDistribution
    from optuna.trial import FrozenTrial

_BAD_LUCK = (FailureClass.INFRA, FailureClass.PREEMPTED, FailureClass.CANCELLED)
"""Failures that say nothing of the values."""


def model_draw(search: Search, number: int, trials: Sequence[TrialRecord]) -> dict[str, Any]:
    """What the estimator proposes as a trial, knowing the others.

    It sees them as they are meant, not as they are stored: the best score of any epoch as a trial's
    result, a trial that others continued as one with them, and one that could not be trained as
    worse than all that were.
    """
    import optuna

    silence()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
        sampler = optuna.samplers.TPESampler(
            n_startup_trials=1,
            multivariate=True,
            constant_liar=True,
            seed=seed_of(search, number),
        )
    study = optuna.create_study(
        sampler=sampler, directions=[objective.direction for objective in search.objectives]
    )
    study.add_trials([seen for seen in (_seen(search, trial) for trial in trials) if seen])
    drawn = study.ask(distributions(search)).params
    return {p.field: value_of(p, drawn[p.field]) for p in search.space}


def seed_of(search: Search, number: int) -> int:
    """For what is drawn for a trial: whoever draws it, and whenever."""
    return int.from_bytes(hashlib.sha256(f"{search.seed}/{number}".encode()).digest()[:4], "big")


def _seen(search: Search, trial: TrialRecord) -> FrozenTrial | None:
    import optuna

    params = parameters_of(search, trial.values)
    if len(params) < len(search.space):
        return None
    values: list[float] | None = None
    reports: dict[int, float] = {}
    single = len(search.objectives) == 1
    if trial.state is TrialState.RUNNING:
        state = optuna.trial.TrialState.RUNNING
    elif trial.state is TrialState.FAILED and single:
        if trial.failure is None or trial.failure[0] in _BAD_LUCK:
            return None
        state = optuna.trial.TrialState.PRUNED
    elif trial.finished and all(o.metric in trial.scores for o in search.objectives):
        values = [trial.scores[objective.metric] for objective in search.objectives]
        state = optuna.trial.TrialState.COMPLETE
        if trial.state is TrialState.PRUNED and single:
            state = optuna.trial.TrialState.PRUNED
            reports = {max(trial.curve): values[0]}
    else:
        return None
    return optuna.trial.create_trial(
        state=state,
        params=params,
        distributions=distributions(search),
        values=values,
        intermediate_values=reports,
    )


# --- parameters as Optuna has them ---------------------------------------------------------
def distributions(search: Search) -> dict[str, BaseDistribution]:
    """By field."""
    return {parameter.field: _distribution(parameter) for parameter in search.space}


def _distribution(parameter: Parameter) -> BaseDistribution:
    from optuna.distributions import (
        CategoricalDistribution,
        FloatDistribution,
        IntDistribution,
    )

    if parameter.kind == "categorical":
        return CategoricalDistribution([_label(choice) for choice in parameter.choices])
    low, high = bounds(parameter)
    if parameter.kind == "float":
        return FloatDistribution(low, high, log=parameter.log)
    return IntDistribution(int(low), int(high), log=is_log(parameter), step=parameter.step)


def parameters_of(search: Search, values: Mapping[str, Any]) -> dict[str, Any]:
    """Those values that lie in the space, as Optuna has them."""
    return {
        p.field: _label(values[p.field]) if p.kind == "categorical" else values[p.field]
        for p in search.space
        if p.field in values and contains(p, values[p.field])
    }


def value_of(parameter: Parameter, stored: Any) -> Any:
    """The other way round."""
    if parameter.kind == "categorical":
        return next(choice for choice in parameter.choices if _label(choice) == stored)
    return rounded(parameter, stored) if parameter.kind == "float" else int(stored)


def _label(choice: Any) -> Any:
    """Optuna stores scalars only."""
    plain = choice is None or isinstance(choice, bool | int | float | str)
    return choice if plain else json.dumps(choice)
