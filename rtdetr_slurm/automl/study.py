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
)
from rtdetr_slurm.automl.history import Continued as Continued
from rtdetr_slurm.automl.journal import JOURNAL, open_journal
from rtdetr_slurm.automl.quiet import silence
from rtdetr_slurm.automl.stored import Attr, StoredTrials
from rtdetr_slurm.automl.warm import Known, best_known, known_trials
from rtdetr_slurm.contract import FailureClass
from rtdetr_slurm.errors import RequestError
from rtdetr_slurm.plan.search import Search
from rtdetr_slurm.records import BadRecord, open_file

if TYPE_CHECKING:
    from optuna.storages import BaseStorage

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

    silence()
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
        try:
            open_file(path).close()  # Optuna would wait for a pipe in its place
        except FileNotFoundError:
            message = "there is no such file: this search has no study"
            raise BadRecord(path, message) from None
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
        self._stored = StoredTrials(search, storage, STUDY)
        self._algorithm = algorithm_of(search)

    @property
    def awaits_others(self) -> bool:
        """Whether what can begin next is up to trials that still run."""
        return self._algorithm.awaits_others

    # --- what is there ---------------------------------------------------------------------
    def trials(self) -> list[TrialRecord]:
        """Every trial, by number."""
        return self._stored.records()

    def best(self) -> TrialRecord | None:
        """The trial with the best score of any epoch; None while there is none."""
        return best_trial(self.trials(), self.search.objective)

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
                if self._stored.begin(trial.number):
                    return self.assignment(trial.number)

    def assignment(self, number: int) -> Assignment:
        """What a running trial is, for whoever goes on with it."""
        if not self._stored.is_drawn(number):
            self._draw(number)
        record = self._stored.record(number)
        return Assignment(number, record.values, record.epochs, record.continues)

    def report(self, number: int, epoch: int, kpis: Mapping[str, float]) -> bool:
        """Note the scores of an epoch.

        Args:
            epoch: zero-based.

        Returns:
            Whether the trial is to go on.
        """
        trial = self._stored.record(number)
        if trial.state is not TrialState.RUNNING:
            return False
        decides, *others = self.search.objectives
        value = kpis.get(decides.metric)
        scored = value is not None and math.isfinite(value)
        curve = {**trial.curve, epoch: value} if value is not None and scored else trial.curve
        if value is not None and scored:
            self._stored.score(number, epoch, value)
        if others:
            # What belongs to the best epoch, and what was not reported then as it is known first.
            at_best = best_epoch(curve, decides) == epoch
            metrics = [o.metric for o in others if o.metric in kpis]
            told = {m: kpis[m] for m in metrics if at_best or m not in trial.scores}
            known = {m: value for m, value in trial.scores.items() if m != decides.metric}
            self._stored.score_others(number, {**known, **told})
        if not scored or epoch + 1 >= trial.epochs:
            return True
        trials = self.trials()
        return self._algorithm.goes_on(next(t for t in trials if t.number == number), trials)

    def kept(self, curve: Mapping[int, float]) -> set[int]:
        """Of a trial with that curve so far, the epochs besides its best and its last whose
        checkpoints another trial may begin with."""
        return self._algorithm.kept(curve)

    def complete(self, number: int, facts: Mapping[str, Any]) -> None:
        """A trial was trained to its end. One without a score has failed."""
        metric = self.search.objective.metric
        if self._stored.record(number).best_epoch is None:
            reason = f"it was trained to its end, and no epoch reported {metric}"
            self.fail(number, FailureClass.CONFIG, reason, facts)
        else:
            self._stored.end(number, TrialState.COMPLETE, facts)

    def prune(self, number: int, facts: Mapping[str, Any]) -> None:
        """A trial was stopped because `report` said so."""
        self._stored.end(number, TrialState.PRUNED, facts)

    def fail(
        self, number: int, failure_class: str, evidence: str, facts: Mapping[str, Any]
    ) -> None:
        """A trial cannot be trained; FailureClass.OOM_GPU keeps others from its batch size."""
        failure = (FailureClass(failure_class).value, evidence)
        self._stored.end(number, TrialState.FAILED, facts, failure)

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
            self._stored.add_waiting({} if draw is None else {Attr.VALUES: dict(draw)})

    def add_known(self, known: Sequence[Known]) -> None:
        """Trials of other searches, which the model of the results goes by."""
        for trial in known:
            self._stored.add_known(trial.origin, trial.values, trial.scores)

    # --- within ----------------------------------------------------------------------------
    def _add_continuation(self) -> None:
        wanted = self._algorithm.continuation(self.trials())
        if wanted is not None:
            self._stored.add_waiting(_attrs(wanted))

    def _draw(self, number: int) -> None:
        values = self._stored.record(number).values
        if not values:
            others = [t for t in self._stored.records(known=True) if t.number != number]
            values = self._algorithm.draw(number, others)
        self._stored.draw(number, *adjusted(self.search, values, self.trials()))


def _attrs(wanted: Continuation) -> dict[str, Any]:
    return {
        Attr.VALUES: dict(wanted.values),
        Attr.STEP: wanted.step,
        Attr.CONTINUES: {"trial": wanted.continues.trial, "epoch": wanted.continues.epoch},
    }
