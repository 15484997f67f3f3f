"""The study of a search: its trials in Optuna's storage, which all workers share.

Every trial of the budget is there from the start and waits (a slot); a worker takes one by setting
it to running, which succeeds for one of them. Nothing else is shared, and every decision is worked
out from the trials alone.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rtdetr_slurm.automl.adjust import adjusted
from rtdetr_slurm.automl.algorithms.base import Continuation
from rtdetr_slurm.automl.algorithms.choose import algorithm_of
from rtdetr_slurm.automl.draws import Values, spec_values
from rtdetr_slurm.automl.history import (
    Assignment,
    TrialRecord,
    TrialState,
    best_epoch,
    best_trial,
    pareto_front,
)
from rtdetr_slurm.automl.history import Continued as Continued
from rtdetr_slurm.automl.journal import JOURNAL, open_journal
from rtdetr_slurm.automl.sampling import distributions, parameters_of
from rtdetr_slurm.automl.stored import Attr, record_of
from rtdetr_slurm.automl.warm import Known, best_known, known_trials
from rtdetr_slurm.contract import FailureClass
from rtdetr_slurm.errors import RequestError
from rtdetr_slurm.plan.search import Search
from rtdetr_slurm.records import BadRecord, exists

if TYPE_CHECKING:
    from optuna.storages import BaseStorage
    from optuna.trial import FrozenTrial

STUDY = "search"


def first_draws(search: Search, number: int) -> list[Values | None]:
    """What the first trials of a search are, as many as `number`: None for one that is drawn when
    it begins; fewer than `number` where there is nothing more to try.

    Raises:
        RequestError: the algorithm cannot do what the search asks for, or what it is to know from
            earlier searches is of no use to it.
    """
    return _first_draws(search, known_trials(search))[:number]


def _first_draws(search: Search, known: Sequence[Known]) -> list[Values | None]:
    spec = spec_values(search.space)
    draws = [spec, *algorithm_of(search).fixed(range(1, search.trials), [])]
    best = best_known(search, known)
    if best is not None and best != spec and search.algorithm != "grid":
        draws[1:2] = [best] if search.trials > 1 else []
    return draws


def create_study(search: Search, storage: BaseStorage | None = None) -> Study:
    """Make the study of a search, with a trial that waits for each of its budget, and with what is
    known from the searches that it names.

    Args:
        storage: where; None: the journal in the search's folder.

    Raises:
        RequestError: as `first_draws`, or there is a study already.
    """
    import optuna

    known = known_trials(search)
    draws = _first_draws(search, known)
    if storage is None:
        search.path.mkdir(parents=True, exist_ok=True)
        storage = open_journal(journal_of(search))
    try:
        made = optuna.create_study(
            storage=storage,
            study_name=STUDY,
            directions=[objective.direction for objective in search.objectives],
        )
    except optuna.exceptions.DuplicatedStudyError:
        raise RequestError(f"{search.folder}: there is a search already") from None
    _name_objectives(search, made)
    study = Study(search, storage)
    study.add_slots(draws)
    study.add_known(known)
    return study


def _name_objectives(search: Search, study: Any) -> None:
    """For Optuna's plots and its dashboard."""
    import warnings

    import optuna

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
        study.set_metric_names([objective.metric for objective in search.objectives])


def open_study(search: Search, storage: BaseStorage | None = None) -> Study:
    """The study that `create_study` has made.

    Raises:
        BadRecord: there is none, or it cannot be read.
    """
    if storage is None:
        path = journal_of(search)
        if not exists(path):
            raise BadRecord(path, "there is no such file: this search has no study")
        storage = open_journal(path)
    try:
        return Study(search, storage)
    except KeyError:
        raise BadRecord(journal_of(search), "this holds no study") from None


def journal_of(search: Search) -> Path:
    return search.path / JOURNAL


class Study:
    """The trials of a search, and what is to be tried next. Any number of processes may have it
    open; whoever runs a trial is the only one to report on it."""

    def __init__(self, search: Search, storage: BaseStorage) -> None:
        self.search = search
        self._storage = storage
        self._id = storage.get_study_id_from_name(STUDY)
        self._algorithm = algorithm_of(search)

    # --- what is there ---------------------------------------------------------------------
    def trials(self) -> list[TrialRecord]:
        """Every trial, by number."""
        return self._records(known=False)

    def best(self) -> TrialRecord | None:
        """The trial with the best score of any epoch; None while there is none."""
        return best_trial(self.trials(), self.search.objective)

    def pareto(self) -> list[TrialRecord]:
        """The trials that no other beats in every objective."""
        return pareto_front(self.trials(), self.search.objectives)

    def open_slots(self) -> int:
        """How many trials wait."""
        return sum(trial.state is TrialState.WAITING for trial in self.trials())

    def is_over(self) -> bool:
        """Whether nothing waits or runs, and nothing can be continued."""
        trials = self.trials()
        busy = any(t.state in (TrialState.WAITING, TrialState.RUNNING) for t in trials)
        return not busy and self._algorithm.continuation(trials) is None

    # --- whoever runs trials ---------------------------------------------------------------
    def take(self) -> Assignment | None:
        """Begin a trial, which nobody else gets; None where none can begin now, which may change
        while others run."""
        while True:
            self._add_continuation()
            waiting = [t for t in self.trials() if t.state is TrialState.WAITING]
            if not waiting:
                return None
            for trial in sorted(waiting, key=lambda trial: (not trial.step, trial.number)):
                if self._begin(trial.number):
                    return self.assignment(trial.number)

    def assignment(self, number: int) -> Assignment:
        """What a running trial is, for whoever goes on with it."""
        stored = self._stored(number)
        if Attr.ADJUSTED not in stored.user_attrs:  # else it was drawn, however far that one came
            self._draw(number, stored.user_attrs.get(Attr.VALUES))
        record = self._record(number)
        return Assignment(number, record.values, record.epochs, record.continues)

    def report(self, number: int, epoch: int, kpis: Mapping[str, float]) -> bool:
        """Note the scores of an epoch.

        Args:
            epoch: zero-based.

        Returns:
            Whether the trial is to go on.
        """
        trial = self._record(number)
        if trial.state is not TrialState.RUNNING:
            return False
        value = kpis.get(self.search.objective.metric)
        scored = value is not None and math.isfinite(value)
        if scored:
            assert value is not None
            self._storage.set_trial_intermediate_value(self._key(number), epoch, value)
        self._note_others(trial, epoch, kpis)
        if not scored or epoch + 1 >= trial.epochs:
            return True
        trials = self.trials()
        [trial] = [trial for trial in trials if trial.number == number]
        return self._algorithm.goes_on(trial, trials)

    def complete(self, number: int, facts: Mapping[str, Any]) -> None:
        """A trial was trained to its end. One without a score has failed."""
        metric = self.search.objective.metric
        if self._record(number).best_epoch is None:
            reason = f"it was trained to its end, and no epoch reported {metric}"
            self.fail(number, FailureClass.CONFIG, reason, facts)
        else:
            self._end(number, TrialState.COMPLETE, facts)

    def prune(self, number: int, facts: Mapping[str, Any]) -> None:
        """A trial was stopped because `report` said so."""
        self._end(number, TrialState.PRUNED, facts)

    def fail(
        self, number: int, failure_class: str, evidence: str, facts: Mapping[str, Any]
    ) -> None:
        """A trial cannot be trained; FailureClass.OOM_GPU keeps others from its batch size."""
        failure = [FailureClass(failure_class).value, evidence]
        self._end(number, TrialState.FAILED, facts, failure)

    # --- whoever submits -------------------------------------------------------------------
    def extend(self, trials: int) -> int:
        """Add trials to the budget; returns how many there was something to try for."""
        slots = [t for t in self.trials() if not t.step]
        numbers = range(len(slots), len(slots) + trials)
        draws = self._algorithm.fixed(numbers, [t.values for t in slots])
        self.add_slots(draws)
        return len(draws)

    def add_slots(self, draws: Sequence[Values | None]) -> None:
        for draw in draws:
            self._add_waiting({} if draw is None else {Attr.VALUES: draw})

    def add_known(self, known: Sequence[Known]) -> None:
        """Trials of other searches, which the model of the results goes by."""
        import optuna

        for trial in known:
            params = parameters_of(self.search, trial.values)
            self._add(
                state=optuna.trial.TrialState.COMPLETE,
                values=[trial.scores[o.metric] for o in self.search.objectives],
                params=params,
                distributions={name: distributions(self.search)[name] for name in params},
                user_attrs={Attr.KNOWN: trial.origin, Attr.VALUES: dict(trial.values)},
            )

    # --- the storage -----------------------------------------------------------------------
    def _records(self, known: bool) -> list[TrialRecord]:
        """Without what two workers have added at the same time: the first counts."""
        records, steps = [], set()
        for stored in self._storage.get_all_trials(self._id, deepcopy=False):
            record = record_of(self.search, stored, self._algorithm.epochs(stored.number))
            if (Attr.KNOWN in stored.user_attrs and not known) or record.step in steps:
                continue
            steps |= {record.step} - {""}
            records.append(record)
        return records

    def _add_continuation(self) -> None:
        wanted = self._algorithm.continuation(self.trials())
        if wanted is not None:
            self._add_waiting(_attrs(wanted))

    def _begin(self, number: int) -> bool:
        from optuna.exceptions import UpdateFinishedTrialError
        from optuna.trial import TrialState as Stored

        try:
            return self._storage.set_trial_state_values(self._key(number), Stored.RUNNING)
        except UpdateFinishedTrialError:  # another has begun and ended it meanwhile
            return False

    def _draw(self, number: int, values: Values | None) -> None:
        if values is None:
            others = [t for t in self._records(known=True) if t.number != number]
            values = self._algorithm.draw(number, others)
        values, reasons = adjusted(self.search, values, self.trials())
        key, kinds = self._key(number), distributions(self.search)
        for name, value in parameters_of(self.search, values).items():
            self._storage.set_trial_param(
                key, name, kinds[name].to_internal_repr(value), kinds[name]
            )
        self._storage.set_trial_user_attr(key, Attr.VALUES, dict(values))
        self._storage.set_trial_user_attr(key, Attr.ADJUSTED, reasons)

    def _note_others(self, trial: TrialRecord, epoch: int, kpis: Mapping[str, float]) -> None:
        """Of the objectives that do not decide, what belongs to the best epoch; what was not
        reported then, as it is known first."""
        decides, *others = self.search.objectives
        curve = {**trial.curve}
        if decides.metric in kpis:
            curve[epoch] = kpis[decides.metric]
        best = best_epoch(curve, decides) == epoch
        told = {
            o.metric: kpis[o.metric]
            for o in others
            if o.metric in kpis and (best or o.metric not in trial.scores)
        }
        if told:
            known = {o.metric: trial.scores[o.metric] for o in others if o.metric in trial.scores}
            key = self._key(trial.number)
            self._storage.set_trial_user_attr(key, Attr.OTHER_SCORES, {**known, **told})

    def _end(
        self,
        number: int,
        state: TrialState,
        facts: Mapping[str, Any],
        failure: list[str] | None = None,
    ) -> None:
        """Does nothing to a trial that has ended: whoever was first is right."""
        import optuna

        trial, key = self._record(number), self._key(number)
        scores = [trial.scores.get(o.metric) for o in self.search.objectives]
        if state is TrialState.FAILED or None in scores:
            scores = []
        try:
            self._storage.set_trial_user_attr(key, Attr.FACTS, dict(facts))
            if failure is not None:
                self._storage.set_trial_user_attr(key, Attr.FAILURE, failure)
            self._storage.set_trial_state_values(
                key,
                optuna.trial.TrialState[_STORED[state]],
                [s for s in scores if s is not None] or None,
            )
        except optuna.exceptions.UpdateFinishedTrialError:
            return

    def _add_waiting(self, attrs: Mapping[str, Any]) -> None:
        import optuna

        self._add(state=optuna.trial.TrialState.WAITING, user_attrs=dict(attrs))

    def _add(self, **trial: Any) -> None:
        import optuna

        self._storage.create_new_trial(self._id, optuna.trial.create_trial(**trial))

    def _record(self, number: int) -> TrialRecord:
        return record_of(self.search, self._stored(number), self._algorithm.epochs(number))

    def _stored(self, number: int) -> FrozenTrial:
        return self._storage.get_trial(self._key(number))

    def _key(self, number: int) -> int:
        return self._storage.get_trial_id_from_study_id_trial_number(self._id, number)


_STORED = {TrialState.COMPLETE: "COMPLETE", TrialState.PRUNED: "PRUNED", TrialState.FAILED: "FAIL"}


def _attrs(wanted: Continuation) -> dict[str, Any]:
    return {
        Attr.VALUES: dict(wanted.values),
        Attr.STEP: wanted.step,
        Attr.CONTINUES: {"trial": wanted.continues.trial, "epoch": wanted.continues.epoch},
        Attr.EPOCHS: wanted.epochs,
    }
