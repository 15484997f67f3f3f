"""One start of a trial: the step that trains it, and what its study hears of it."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass
from enum import Enum
from typing import Any

from rtdetr_slurm.automl.history import Assignment, TrialRecord, best_epoch
from rtdetr_slurm.automl.study import Study
from rtdetr_slurm.contract import CHECKPOINT_PATTERN, FailureClass, Kpi
from rtdetr_slurm.errors import ActionError, UserError, explained
from rtdetr_slurm.launch.attempt import Attempt
from rtdetr_slurm.launch.inputs import Resolved
from rtdetr_slurm.launch.job_run import JobRun
from rtdetr_slurm.launch.log import say
from rtdetr_slurm.launch.verdict import Kind, Verdict, decide
from rtdetr_slurm.plan.model import StageTask
from rtdetr_slurm.plan.search import Search
from rtdetr_slurm.resolved_spec import value_at
from rtdetr_slurm.runs.alive import say_alive
from rtdetr_slurm.runs.best import read_best
from rtdetr_slurm.runs.checkpoints import (
    RESUME_FIELD,
    kpi_by_epoch,
    list_checkpoints,
    list_interrupted,
    verify_checkpoint,
)
from rtdetr_slurm.runs.claim import Start, claim_id

_INTERRUPTIONS = (FailureClass.PREEMPTED, FailureClass.TIMEOUT, FailureClass.CANCELLED)
EPOCHS_FIELD = "train.num_epochs"
_CHECKPOINTS, _VALIDATIONS = "train.checkpoint_interval", "train.validation_interval"


class Outcome(Enum):
    """What becomes of a trial after one start of it."""

    COMPLETE = "complete"
    PRUNED = "pruned"
    """The algorithm has stopped it."""
    FAILED = "failed"
    PAUSED = "paused"
    """It has not ended, and a further start goes on with it."""


@dataclass(frozen=True)
class TrialEnd:
    """How a start of a trial ended.

    Attributes:
        verdict: on the step, as if the job had been there for it alone.
    """

    outcome: Outcome
    verdict: Verdict

    @property
    def failure_class(self) -> FailureClass:
        return self.verdict.failure_class or FailureClass.UNKNOWN


class TrialStart:
    """One start of a trial.

    Args:
        job: the worker's.
        assignment: what is to be trained.
        number: of the start.
    """

    def __init__(
        self, job: JobRun, search: Search, study: Study, assignment: Assignment, number: int
    ) -> None:
        self.job, self.search, self.study, self.assignment = job, search, study, assignment
        worker = job.task
        self.task = StageTask(worker.stage, worker.index, assignment.number)
        claim = Start(claim_id(job.run.id, self.task.name), number)
        log = job.run.log_path(worker.stage.name, job.allocation.job_id)
        size = log.stat().st_size if log.exists() else 0
        self.attempt = Attempt(job.run, job.allocation, self.task, claim, log_start=size)
        self.pruned = False
        self._told: set[int] = set()

    def execute(self, step: int) -> TrialEnd:
        """Train, until it ends, is stopped or interrupted.

        Args:
            step: number of the step within the worker's start.
        """
        verdict = self._verdict(step)
        self.job.note(lambda: self.attempt.close(verdict))
        return TrialEnd(self._outcome(verdict), verdict)

    def _verdict(self, step: int) -> Verdict:
        try:
            self.attempt.prepare(self._record_inputs, self._start_from(), self._values())
            self._told = set(self._record().curve)
            end = self.attempt.execute(
                self.job.stop,
                self.job.why,
                seconds_left=self.job.seconds_left,
                sign_of_life=self._sign,
                wanted=self._wanted,
                number=step,
            )
            self._report()
            verdict = decide(self.job.of_this_job(self.attempt.witnesses(end)))
            if verdict.kind is Kind.SUCCESS and not self._scored():
                metric = self.search.objective.metric
                reason = f"its status.json has no {metric}, which the search goes by"
                return Verdict(Kind.FAILED, reason, FailureClass.CONFIG)
            return self._stopped() if self.pruned and verdict.kind is not Kind.SUCCESS else verdict
        except (UserError, OSError) as error:
            problem = explained(error)
            return Verdict(Kind.FAILED, str(problem), problem.failure_class, True)

    def _outcome(self, verdict: Verdict) -> Outcome:
        if verdict.kind is Kind.SUCCESS:
            ended_early = self.pruned and not self._trained_to_its_end()
            return Outcome.PRUNED if ended_early else Outcome.COMPLETE
        if verdict.failure_class is FailureClass.INFRA and not verdict.by_slurm:
            return Outcome.FAILED  # whether it is tried again is the worker's to say
        # What was asked to stop has not failed, also where the job may not go on.
        asked = self.job.stop.signum is not None and verdict.failure_class in _INTERRUPTIONS
        return Outcome.FAILED if verdict.kind is Kind.FAILED and not asked else Outcome.PAUSED

    def _trained_to_its_end(self) -> bool:
        """Whether it has its last epoch, also where the search had wanted less by then."""
        found = list_checkpoints(self.attempt.results.path)
        return bool(found) and found[-1].epoch + 1 >= self.assignment.epochs

    def _stopped(self) -> Verdict:
        """The verdict on a training that the algorithm has stopped, which is as good as an end."""
        reason = f"stopped by the search after epoch {max(self._told, default=0)}"
        return Verdict(Kind.SUCCESS, reason, write_status=True)

    def _record(self) -> TrialRecord:
        number = self.assignment.number
        return next(one for one in self.study.trials() if one.number == number)

    def _scored(self) -> bool:
        return bool(self._record().curve)

    # --- what it is trained with -----------------------------------------------------------
    def _values(self) -> dict[str, Any]:
        """Fields of the spec, by dotted paths. A checkpoint is written whenever there is a score,
        for the best epoch counts, and which of them stay is the search's to say."""
        scored = value_at(self.job.run.spec, _VALIDATIONS)
        every = 1 if self.search.objective.metric == Kpi.TRAIN_LOSS else scored
        return {
            **self.assignment.values,
            EPOCHS_FIELD: self.assignment.epochs,
            _CHECKPOINTS: every,
            f"{_CHECKPOINTS}_unit": "epoch",
            "train.checkpointer.enable_topk": False,
        }

    def _start_from(self) -> list[Resolved]:
        """The checkpoint of the trial that this one continues; none where it has not been kept, as
        when a search is extended that was over.

        Raises:
            ActionError: it is not there, or is torn.
        """
        before = self.assignment.continues
        if before is None:
            return []
        task = StageTask(self.task.stage, self.task.index, before.trial)
        path = task.results_dir / CHECKPOINT_PATTERN.format(epoch=before.epoch)
        if not path.exists() and read_best(self.search) is not None:
            say(f"the checkpoints of trial {before.trial} are not kept: it starts over")
            return []
        if problem := verify_checkpoint(path):
            raise ActionError(f"{self.task.name} continues trial {before.trial}: {problem}")
        return [Resolved(RESUME_FIELD, str(path), f"trial {before.trial}")]

    def _record_inputs(self, inputs: list[Resolved]) -> None:
        facts = self.task.event_facts(self.job.allocation.job_id)
        told = [asdict(one) for one in inputs]
        start = self.attempt.start.restart
        self.job.note(lambda: self.job.run.record("resolved", **facts, restart=start, inputs=told))

    # --- while it runs -----------------------------------------------------------------------
    def _sign(self) -> None:
        for task in (self.job.task, self.task):
            self.job.note(lambda task=task: say_alive(self.job.run, task))  # type: ignore[misc]

    def _wanted(self) -> bool:
        """Whether the study, told of what is new, wants it to go on; it does while that cannot be
        read."""
        with suppress(UserError, OSError):
            self._report()
        return not self.pruned

    def _report(self) -> None:
        """Tell the study the scores of epochs that it has not heard of, and keep of the
        checkpoints the best and the last."""
        found = kpi_by_epoch(self.attempt.results.path)
        metric = self.search.objective.metric
        curve = found.get(metric, {})
        for epoch in sorted(set(curve) - self._told):
            kpis = {name: values[epoch] for name, values in found.items() if epoch in values}
            if not self.study.report(self.assignment.number, epoch, kpis):
                self.pruned = True
            self._told.add(epoch)
            self._thin_out(curve)

    def _thin_out(self, curve: Mapping[int, float]) -> None:
        kept = {best_epoch(curve, self.search.objective), *self.study.kept(curve)}
        for one in list_checkpoints(self.attempt.results.path)[:-1]:
            if one.epoch not in kept and one.epoch in self._told:
                with suppress(OSError):
                    one.path.unlink()

    # --- its end -----------------------------------------------------------------------------
    def leave(self) -> None:
        """Remove what only a further start would need."""
        if list_checkpoints(self.attempt.results.path):
            for one in list_interrupted(self.attempt.results.path):
                with suppress(OSError):
                    one.path.unlink()
