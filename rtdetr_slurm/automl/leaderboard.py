"""The trials of a search in the order of what they are worth, and leaderboard.csv. Pure; standard
library only."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from rtdetr_slurm.automl.baseline import Baseline
from rtdetr_slurm.automl.history import TrialRecord, TrialState, pareto_front
from rtdetr_slurm.plan.search import Search

_AFTER = (TrialState.RUNNING, TrialState.FAILED, TrialState.WAITING)
"""What follows those that have ended with a score, in this order."""


@dataclass(frozen=True)
class Entry:
    """A trial in its place.

    Attributes:
        rank: from 1; None of one that has no result (yet).
        on_front: whether no other is better in every objective, where there are several.
    """

    trial: TrialRecord
    rank: int | None = None
    on_front: bool = False


def leaderboard(search: Search, trials: Sequence[TrialRecord]) -> list[Entry]:
    """The best first, the earlier of equals; then what has no result."""
    metric, sign = search.objective.metric, -1 if search.objective.direction == "maximize" else 1
    ended = [trial for trial in trials if trial.finished and metric in trial.scores]
    ended.sort(key=lambda trial: (sign * trial.scores[metric], trial.number))
    several = len(search.objectives) > 1
    front = {trial.number for trial in pareto_front(ended, search.objectives)} if several else {}
    ranked = [Entry(trial, rank, trial.number in front) for rank, trial in enumerate(ended, 1)]
    placed = {trial.number for trial in ended}
    rest = [trial for trial in trials if trial.number not in placed]
    rest.sort(key=lambda trial: (_place(trial), trial.number))
    return [*ranked, *map(Entry, rest)]


def _place(trial: TrialRecord) -> int:
    return _AFTER.index(trial.state) if trial.state in _AFTER else 0


def short_names(search: Search) -> dict[str, str]:
    """Field to the shortest end of its name that no other field of the space has."""
    fields = [parameter.field for parameter in search.space]
    names = {}
    for field in fields:
        parts = field.split(".")
        ends = (".".join(parts[-count:]) for count in range(1, len(parts) + 1))
        alike = [other for other in fields if other != field]
        names[field] = next(
            (end for end in ends if not any(f".{o}".endswith(f".{end}") for o in alike)), field
        )
    return names


def shown_value(value: Any) -> str:
    """A value of a field as people read it."""
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def shown_score(score: float | None) -> str:
    """A score as people read it; empty where there is none."""
    if score is None:
        return ""
    return f"{score:.4f}" if abs(score) < 1000 else f"{score:.0f}"


def whole_curve(trial: TrialRecord, trials: Mapping[int, TrialRecord]) -> dict[int, float]:
    """Deciding metric by epoch, with the epochs of the trials that it continues.

    Args:
        trials: all, by number.
    """
    curve = dict(trial.curve)
    seen = {trial.number}
    before = trial.continues
    while before is not None and before.trial in trials and before.trial not in seen:
        earlier = trials[before.trial]
        curve |= {e: v for e, v in earlier.curve.items() if e <= before.epoch and e not in curve}
        seen.add(earlier.number)
        before = earlier.continues
    return dict(sorted(curve.items()))


# --- leaderboard.csv -----------------------------------------------------------------------
def leaderboard_csv(search: Search, entries: Iterable[Entry], baseline: Baseline | None) -> str:
    """A line for each trial that has begun, one for what they start from, and columns for the
    values of the fields that are searched; epochs count from 0, as in the files' names."""
    metrics = [objective.metric for objective in search.objectives]
    fields = [parameter.field for parameter in search.space]
    measured = [baseline.metric] if baseline and baseline.metric not in metrics else []
    stream = io.StringIO()
    writer = csv.writer(stream, lineterminator="\n")
    writer.writerow(
        [
            *("rank", "trial", "state", *metrics, *measured, "best_epoch", "last_epoch"),
            *("on_pareto_front", "continues", "seconds", "gpu_hours", "failure", "evidence"),
            *fields,
        ]
    )
    if baseline is not None:
        scores = [baseline.value if m == baseline.metric else "" for m in (*metrics, *measured)]
        writer.writerow(["", "baseline", "", *scores, *[""] * (8 + len(fields))])
    for entry in entries:
        trial = entry.trial
        if trial.state is TrialState.WAITING:
            continue
        failure = trial.failure or ("", "")
        writer.writerow(
            [
                *("" if entry.rank is None else entry.rank, trial.number, trial.state.value),
                *(trial.scores.get(metric, "") for metric in metrics),
                *("" for _ in measured),
                "" if trial.best_epoch is None else trial.best_epoch,
                max(trial.curve, default=""),
                ("yes" if entry.on_front else "no") if len(metrics) > 1 else "",
                "" if trial.continues is None else trial.continues.trial,
                *(trial.facts.get(name, "") for name in ("seconds", "gpu_hours")),
                *failure,
                *(trial.values.get(field, "") for field in fields),
            ]
        )
    return stream.getvalue()
