"""One start of one job: what is written down when it begins and when it ends, and whether it goes
back to the queue. What it does in between is its subclasses'.

The batch script becomes this process. At the end it writes down what happened, whatever happened.
"""

from __future__ import annotations

import os
import time
from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import replace
from typing import Any

from rtdetr_slurm.contract import RUN_JSON, SUMMARY_JSON, FailureClass
from rtdetr_slurm.errors import UserError, explained
from rtdetr_slurm.files import sha256_of
from rtdetr_slurm.launch.allocation import Allocation, Exclusion, StopReason
from rtdetr_slurm.launch.history import History, history_of
from rtdetr_slurm.launch.log import say
from rtdetr_slurm.launch.step import StopRequest
from rtdetr_slurm.launch.verdict import Kind, Verdict, Witnesses, before_step, seconds_left
from rtdetr_slurm.runs.alive import last_alive
from rtdetr_slurm.runs.events import Event
from rtdetr_slurm.runs.failures import Failure
from rtdetr_slurm.runs.notices import tell_end, tell_start
from rtdetr_slurm.runs.processes import process_facts
from rtdetr_slurm.runs.report import keep_summary
from rtdetr_slurm.runs.run import Run
from rtdetr_slurm.runs.state import CANCELLED_BEFORE, is_to_end, starts_in_vain, task_events


class JobRun(ABC):
    """One start of a stage, or of one task of its array."""

    def __init__(self, run: Run, allocation: Allocation, stop: StopRequest) -> None:
        self.run, self.allocation, self.stop = run, allocation, stop
        self.task = allocation.task
        self.endurance = self.task.stage.launch.endurance
        self.history = History()
        self._in_vain = 0
        self._began = time.monotonic()

    # --- what a job is about -----------------------------------------------------------------
    @abstractmethod
    def reached(self) -> tuple[int, int]:
        """How far it is, when it starts; a job that starts again and again at the same place is
        given up."""

    @abstractmethod
    def look(self) -> None:
        """See whether there is anything of it already, before it may be refused."""

    @abstractmethod
    def prepare(self) -> None:
        """Make ready what it needs.

        Raises:
            UserError: it cannot be had.
        """

    @abstractmethod
    def work(self) -> Verdict:
        """Do it."""

    @abstractmethod
    def write_end(self, verdict: Verdict) -> None:
        """Give the results folder its last word."""

    @abstractmethod
    def end_facts(self, verdict: Verdict) -> dict[str, Any]:
        """What the record of its end says besides how it ended."""

    @abstractmethod
    def after_end(self) -> None:
        """Leave what can be told once its end is on record."""

    # --- one start -----------------------------------------------------------------------------
    def execute(self) -> int:
        """Start, work, judge; returns the exit code."""
        pid = os.getpid()
        facts = {"pid": pid, **process_facts(str(pid))}
        last_sign = last_alive(self.run, self.task)
        self.history = history_of(self.events(), self.allocation.restart, last_sign)
        reached = self.reached()
        self.record(
            "started",
            **facts,
            manifest_sha256=sha256_of(self.run.path / RUN_JSON),
            reached=reached,
            seconds_before=round(self.history.seconds, 1),
            **({} if last_sign is None else {"last_sign": last_sign.isoformat()}),
        )
        self.note(self.allocation.mail_first_start_only)
        self.note(lambda: (self.run.path / SUMMARY_JSON).unlink(missing_ok=True))
        try:
            self.look()
            events = self.events()
            if is_to_end(events):
                verdict = Verdict(Kind.CANCELLED, CANCELLED_BEFORE, FailureClass.CANCELLED, True)
                return self._close(verdict)
            self._in_vain = starts_in_vain(events, self.allocation.restart, reached)
            if (ended := self._before_step()) is not None:
                return self._close(ended)
            self.prepare()
            self.allocation.check()
            self.note(lambda: tell_start(self.run, self.allocation.job_id))
            verdict = self.work()
        except (UserError, OSError) as error:
            problem = explained(error)
            verdict = Verdict(Kind.FAILED, str(problem), problem.failure_class, True)
        except Exception as error:
            reason = f"the launch failed: {error!r}"
            self._close(Verdict(Kind.FAILED, reason, FailureClass.UNKNOWN, True))
            raise
        return self._close(verdict)

    def _before_step(self) -> Verdict | None:
        """Whether the starts before this one leave it anything to do."""
        return before_step(
            self.endurance,
            self.history,
            self.allocation.restart - self.allocation.first,
            seconds_needed=self.task.stage.launch.signal_lead_s,
            nodes=self.allocation.nodes() if self.history.excluded else (),
            starts_in_vain=self._in_vain,
        )

    # --- for its work ------------------------------------------------------------------------
    def seconds_left(self) -> float | None:
        """What job.max_hours leaves to this start, from now on."""
        left = seconds_left(self.endurance, self.history)
        return None if left is None else left - (time.monotonic() - self._began)

    def why(self, signum: int) -> StopReason:
        """What a stop signal means."""
        reason = self.allocation.why_stopped(signum, self.task.stage.launch.signal_lead_s)
        cancelled = is_to_end(self.events())
        return replace(reason, why=FailureClass.CANCELLED) if cancelled else reason

    def of_this_job(self, end: Witnesses) -> Witnesses:
        """What is known of a step, with what concerns its job."""
        left = self.seconds_left()
        return replace(
            end,
            starts_in_vain=self._in_vain + 1,
            requeue_allowed=self.task.stage.launch.requeue,
            restart=self.allocation.restart - self.allocation.first,
            history=self.history,
            endurance=self.endurance,
            out_of_hours=left is not None and left <= self.task.stage.launch.signal_lead_s,
        )

    def events(self) -> list[Event]:
        """What is on record of this task; a damaged record keeps it neither from its start nor
        from its stop."""
        try:
            return task_events(self.run.events(), self.task, self.allocation.first)
        except UserError as error:
            say(f"whether somebody has cancelled it is not known: {error}")
            return []

    def record(self, event: str, **data: Any) -> None:
        facts = self.task.event_facts(self.allocation.job_id)
        restart = self.allocation.restart
        self.note(lambda: self.run.record(event, **facts, restart=restart, **data))

    def note(self, write: Callable[[], None]) -> None:
        """Write something down; a full disk must not keep the rest from happening."""
        try:
            write()
        except OSError as error:
            say(f"cannot read or write {error.filename or 'the record'}: {error.strerror}")
        except UserError as error:
            say(str(error))

    # --- its end -----------------------------------------------------------------------------
    def _close(self, verdict: Verdict) -> int:
        """Write down the end, requeue where that is the verdict, return the exit code."""
        if verdict.kind is Kind.REQUEUE:
            verdict = self._requeue(verdict)
        if verdict.kind is not Kind.REQUEUE:
            self.note(lambda: self.write_end(verdict))
            self._record_end(verdict)
        say(f"{verdict.kind.value}: {verdict.reason}" if verdict.reason else verdict.kind.value)
        return verdict.exit_code

    def _requeue(self, verdict: Verdict) -> Verdict:
        """Write down that the job goes back, and have it do so; the verdict that comes of it."""
        exclusion = self._exclusion(verdict)
        self.record(
            "requeued",
            reason=verdict.reason,
            failure_class=verdict.failure_class,
            bad_nodes=verdict.bad_nodes,
            excluded=exclusion.nodes or self.history.excluded,
            **({} if verdict.refusal is None else {"refusal": verdict.refusal}),
            **({"misplaced": True} if verdict.misplaced else {}),
            **({"by_slurm": True} if verdict.by_slurm else {}),
        )
        self.note(lambda: self.write_end(verdict))
        try:
            self.allocation.requeue(exclusion.nodes)
        except UserError as error:
            reason = f"{verdict.reason}, but the requeue was refused: {error}"
            return Verdict(Kind.FAILED, reason, verdict.failure_class, True)
        return verdict

    def _exclusion(self, verdict: Verdict) -> Exclusion:
        """The nodes that the job leaves out from now on; none where that stays as it is."""
        history = self.history
        if verdict.failure_class is not FailureClass.INFRA or verdict.by_slurm:
            return Exclusion()
        bad = tuple(dict.fromkeys([*verdict.bad_nodes, *history.bad_nodes]))
        exclusion = self.allocation.exclusion(bad, history.excluded)
        if exclusion.nodes:
            say(f"leaves out {', '.join(exclusion.nodes)} from now on")
        if exclusion.note:
            say(exclusion.note)
        return exclusion

    def _record_end(self, verdict: Verdict) -> None:
        data: dict[str, Any] = {"state": verdict.kind.value, "reason": verdict.reason}
        if verdict.failure_class is not None:
            data["failure_class"] = verdict.failure_class.value
            say(Failure(verdict.failure_class, verdict.reason).advice)
        self.note(lambda: data.update(self.end_facts(verdict)))
        self.record("finished", **data)
        self.note(self.after_end)
        self.note(lambda: keep_summary(self.run))
        self._tell_end(verdict)

    def _tell_end(self, verdict: Verdict) -> None:
        failure = None
        if verdict.kind is Kind.FAILED and verdict.failure_class is not None:
            failure = Failure(verdict.failure_class, verdict.reason)
        self.note(lambda: tell_end(self.run, self.task, self.allocation.job_id, failure))
