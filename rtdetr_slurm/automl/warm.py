"""What a search knows from earlier ones."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rtdetr_slurm.automl.draws import Values
from rtdetr_slurm.automl.journal import open_journal
from rtdetr_slurm.automl.sampling import parameters_of
from rtdetr_slurm.automl.stored import Attr
from rtdetr_slurm.errors import RequestError
from rtdetr_slurm.plan.search import Search
from rtdetr_slurm.records import BadRecord, exists


@dataclass(frozen=True)
class Known:
    """A trial of an earlier search.

    Attributes:
        origin: which.
        scores: by metric.
    """

    origin: str
    values: Values
    scores: Mapping[str, float]


def known_trials(search: Search) -> list[Known]:
    """The trials of the searches that a search names that say something about its space.

    Raises:
        RequestError: a journal cannot be read, or nothing in it is of use to this search.
    """
    return [trial for journal in search.warm_start for trial in _of_journal(search, Path(journal))]


def _of_journal(search: Search, path: Path) -> list[Known]:
    import optuna

    if not exists(path):
        raise BadRecord(
            path, "there is no such file: an earlier search would have its journal here"
        )
    storage = open_journal(path)
    studies = optuna.get_all_study_names(storage)
    found = [
        known
        for name in studies
        for known in _of_study(
            search, f"{path}", optuna.load_study(study_name=name, storage=storage)
        )
    ]
    if not found:
        fields = ", ".join(parameter.field for parameter in search.space)
        metrics = ", ".join(objective.metric for objective in search.objectives)
        raise RequestError(
            f"{path}: no finished trial there has {metrics} of values that this search could try "
            f"({fields}): leave this search out of automl.warm_start, or search the same fields"
        )
    return found


def _of_study(search: Search, origin: str, study: Any) -> list[Known]:
    metrics = study.metric_names or []
    directions = [direction.name.lower() for direction in study.directions]
    wanted = {objective.metric: objective.direction for objective in search.objectives}
    offered = dict(zip(metrics, directions, strict=False))
    if any(offered.get(metric) != direction for metric, direction in wanted.items()):
        return []
    found = []
    for trial in study.get_trials(deepcopy=False):
        values = trial.user_attrs.get(Attr.VALUES, {})
        if trial.state.name != "COMPLETE" or Attr.KNOWN in trial.user_attrs:
            continue
        if len(parameters_of(search, values)) < len(search.space):
            continue
        scores = dict(zip(metrics, trial.values, strict=True))
        own = {parameter.field: values[parameter.field] for parameter in search.space}
        kept = {metric: scores[metric] for metric in wanted}
        found.append(Known(f"{origin}: trial {trial.number}", own, kept))
    return found


def best_known(search: Search, known: Sequence[Known]) -> dict[str, Any] | None:
    """The values that were best; None where nothing is known."""
    best: Known | None = None
    metric = search.objective.metric
    for trial in known:
        if best is None or search.objective.better(trial.scores[metric], best.scores[metric]):
            best = trial
    return None if best is None else dict(best.values)
