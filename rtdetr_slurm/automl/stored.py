"""Trials in Optuna's storage, as plain values; what the journal says is data, and checked."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime, timezone
from typing import TYPE_CHECKING, Any

from rtdetr_slurm.automl.history import Continued, TrialRecord, TrialState, best_epoch
from rtdetr_slurm.automl.sampling import distributions, parameters_of
from rtdetr_slurm.plan.search import Search
from rtdetr_slurm.records import Prose, checked

if TYPE_CHECKING:
    from optuna.storages import BaseStorage
    from optuna.trial import FrozenTrial


class Attr:
    """User attributes of a trial."""

    VALUES = "values"
    """Effective ones by field; of a trial that waits, those that are fixed."""
    ADJUSTED = "adjusted"
    """Why some are not those drawn; it is there once the values are final."""
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


def record_of(search: Search, trial: FrozenTrial) -> TrialRecord:
    """
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
        epochs=search.epochs,
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


class StoredTrials:
    """Those of a study."""

    def __init__(self, search: Search, storage: BaseStorage, study: str) -> None:
        """
        Raises:
            KeyError: there is no such study.
        """
        self._search, self._storage = search, storage
        self._id = storage.get_study_id_from_name(study)
        self._kinds = distributions(search)
        self._seen: dict[int, tuple[FrozenTrial, TrialRecord]] = {}
        """By number: what was read last. Optuna puts another object in a trial's place when it
        changes."""

    def records(self, known: bool = False) -> list[TrialRecord]:
        """By number. Of what two workers have added at the same time, the first counts.

        Args:
            known: those of other searches too.
        """
        records, steps = [], set[str]()
        for stored in self._storage.get_all_trials(self._id, deepcopy=False):
            record = self._record_of(stored)
            if (Attr.KNOWN in stored.user_attrs and not known) or record.step in steps:
                continue
            steps |= {record.step} - {""}
            records.append(record)
        return records

    def record(self, number: int) -> TrialRecord:
        return self._record_of(self._storage.get_trial(self._key(number)))

    def add_waiting(self, attrs: Mapping[str, Any]) -> None:
        import optuna

        self._add(state=optuna.trial.TrialState.WAITING, user_attrs=dict(attrs))

    def add_known(
        self, origin: str, values: Mapping[str, Any], scores: Mapping[str, float]
    ) -> None:
        import optuna

        params = parameters_of(self._search, values)
        self._add(
            state=optuna.trial.TrialState.COMPLETE,
            values=[scores[objective.metric] for objective in self._search.objectives],
            params=params,
            distributions={name: self._kinds[name] for name in params},
            user_attrs={Attr.KNOWN: origin, Attr.VALUES: dict(values)},
        )

    def begin(self, number: int) -> bool:
        """Whether a trial that waited is the caller's from now on."""
        import optuna

        try:
            return self._storage.set_trial_state_values(
                self._key(number), optuna.trial.TrialState.RUNNING
            )
        except optuna.exceptions.UpdateFinishedTrialError:  # another has begun and ended it
            return False

    def is_drawn(self, number: int) -> bool:
        """Whether the values of a trial are final, however far whoever drew them came."""
        return Attr.ADJUSTED in self._storage.get_trial(self._key(number)).user_attrs

    def draw(self, number: int, values: Mapping[str, Any], adjusted: Mapping[str, str]) -> None:
        key = self._key(number)
        for name, value in parameters_of(self._search, values).items():
            kind = self._kinds[name]
            self._storage.set_trial_param(key, name, kind.to_internal_repr(value), kind)
        self._storage.set_trial_user_attr(key, Attr.VALUES, dict(values))
        self._storage.set_trial_user_attr(key, Attr.ADJUSTED, dict(adjusted))

    def score(self, number: int, epoch: int, value: float) -> None:
        self._storage.set_trial_intermediate_value(self._key(number), epoch, value)

    def score_others(self, number: int, scores: Mapping[str, float]) -> None:
        self._storage.set_trial_user_attr(self._key(number), Attr.OTHER_SCORES, dict(scores))

    def end(
        self,
        number: int,
        state: TrialState,
        facts: Mapping[str, Any],
        failure: tuple[str, str] | None = None,
    ) -> None:
        """Does nothing to a trial that has ended: whoever was first is right."""
        import optuna

        trial, key = self.record(number), self._key(number)
        scores = [trial.scores.get(objective.metric) for objective in self._search.objectives]
        told = [score for score in scores if score is not None]
        whole = state is not TrialState.FAILED and len(told) == len(scores)
        stored = next(name for name, ours in _STATES.items() if ours is state)
        try:
            self._storage.set_trial_user_attr(key, Attr.FACTS, dict(facts))
            if failure is not None:
                self._storage.set_trial_user_attr(key, Attr.FAILURE, [*failure])
            self._storage.set_trial_state_values(
                key, optuna.trial.TrialState[stored], told if whole else None
            )
        except optuna.exceptions.UpdateFinishedTrialError:
            return

    def _record_of(self, stored: FrozenTrial) -> TrialRecord:
        last = self._seen.get(stored.number)
        if last is None or last[0] is not stored:
            last = self._seen[stored.number] = (stored, record_of(self._search, stored))
        return last[1]

    def _add(self, **trial: Any) -> None:
        import optuna

        self._storage.create_new_trial(self._id, optuna.trial.create_trial(**trial))

    def _key(self, number: int) -> int:
        return self._storage.get_trial_id_from_study_id_trial_number(self._id, number)
