"""A trial in Optuna's storage as a plain value; what the journal says is data, and checked."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime, timezone
from typing import TYPE_CHECKING, Any

from rtdetr_slurm.automl.history import Continued, TrialRecord, TrialState, best_epoch
from rtdetr_slurm.plan.search import Search
from rtdetr_slurm.records import Prose, checked

if TYPE_CHECKING:
    from optuna.trial import FrozenTrial


class Attr:
    """User attributes of a trial."""

    VALUES = "values"
    """Effective ones by field; of a trial that waits, those that are fixed."""
    ADJUSTED = "adjusted"
    """Why some are not those drawn; it is there once the values are final."""
    EPOCHS = "epochs"
    STEP = "step"
    CONTINUES = "continues"
    OTHER_SCORES = "other_scores"
    """At the best epoch, of the objectives that do not decide."""
    FAILURE = "failure"
    FACTS = "facts"
    KNOWN = "known"
    """Of a trial of another search: which."""


@dataclass(frozen=True)
class _Attrs:
    values: dict[str, Any] = field(default_factory=dict)
    adjusted: dict[str, Prose] = field(default_factory=dict)
    epochs: int | None = None
    step: Prose = ""
    continues: Continued | None = None
    other_scores: dict[str, float] = field(default_factory=dict)
    failure: list[Prose] | None = None
    facts: dict[str, Any] = field(default_factory=dict)
    known: Any = None


_STATES = {
    "WAITING": TrialState.WAITING,
    "RUNNING": TrialState.RUNNING,
    "COMPLETE": TrialState.COMPLETE,
    "PRUNED": TrialState.PRUNED,
    "FAIL": TrialState.FAILED,
}


def record_of(search: Search, trial: FrozenTrial, epochs: int) -> TrialRecord:
    """
    Args:
        epochs: what a trial of the budget with its number is to train to.

    Raises:
        BadRecord: the journal holds what no study of ours has written.
    """
    attrs = checked(_Attrs, _ours(trial.user_attrs), f"{search.folder}: trial {trial.number}")
    decides = search.objective
    curve = {epoch: trial.intermediate_values[epoch] for epoch in sorted(trial.intermediate_values)}
    best = best_epoch(curve, decides)
    scores = {} if best is None else {decides.metric: curve[best]}
    if best is None and trial.values:  # of another search
        scores = {o.metric: v for o, v in zip(search.objectives, trial.values, strict=True)}
    failure = attrs.failure
    return TrialRecord(
        number=trial.number,
        state=_STATES[trial.state.name],
        values=attrs.values,
        adjusted=attrs.adjusted,
        curve=curve,
        scores={**scores, **attrs.other_scores},
        best_epoch=best,
        epochs=attrs.epochs or epochs,
        continues=attrs.continues,
        step=attrs.step,
        failure=(failure[0], failure[1]) if failure is not None and len(failure) == 2 else None,
        facts=attrs.facts,
        started=_aware(trial.datetime_start),
        ended=_aware(trial.datetime_complete),
    )


def _ours(attrs: Mapping[str, Any]) -> dict[str, Any]:
    """Without what a dashboard or a person has added."""
    return {name: value for name, value in attrs.items() if name in _Attrs.__dataclass_fields__}


def _aware(moment: datetime | None) -> datetime | None:
    """Optuna writes this machine's time, without its zone."""
    return None if moment is None else moment.astimezone(timezone.utc)
