"""One start of one stage: prepare, run its step, judge, close.

The batch script becomes this process. At the end it writes down what happened, whatever happened.
"""

from __future__ import annotations

import json
import os
import shutil
import time
from collections.abc import Callable
from dataclasses import asdict, replace
from typing import Any

from rtdetr_slurm.actions import get_action
from rtdetr_slurm.contract import RUN_JSON, SUMMARY_JSON, FailureClass, Status
from rtdetr_slurm.errors import ActionError, UserError, explained
from rtdetr_slurm.files import PRIVATE_DIR, PRIVATE_FILE, sha256_of, write_atomic
from rtdetr_slurm.launch.allocation import Allocation, Exclusion, StopReason
from rtdetr_slurm.launch.history import History, history_of
from rtdetr_slurm.launch.inputs import INPUTS_JSON, filled_in, resolve_inputs
from rtdetr_slurm.launch.log import say
from rtdetr_slurm.launch.node_errors import read_node_errors
from rtdetr_slurm.launch.results import ResultsFolder
from rtdetr_slurm.launch.step import Step, StepEnd, StopRequest
from rtdetr_slurm.launch.tao import (
    going_on,
    tao_spec,
)
from rtdetr_slurm.launch.verdict import (
    Kind,
    Verdict,
    Witnesses,
    before_step,
    decide,
    seconds_left,
)
from rtdetr_slurm.resolved_spec import spec_text
from rtdetr_slurm.runs.alive import last_alive, say_alive
from rtdetr_slurm.runs.artefacts import made_files, verified_checkpoints
from rtdetr_slurm.runs.claim import Start, claim_id
from rtdetr_slurm.runs.efficiency import keep_efficiency
from rtdetr_slurm.runs.events import Event
from rtdetr_slurm.runs.failures import Failure
from rtdetr_slurm.runs.logs import tail
from rtdetr_slurm.runs.notices import tell_end, tell_start
from rtdetr_slurm.runs.processes import process_facts
from rtdetr_slurm.runs.report import keep_summary
from rtdetr_slurm.runs.run import Run
from rtdetr_slurm.runs.state import CANCELLED_BEFORE, is_to_end, starts_in_vain, task_events
from rtdetr_slurm.runs.status import read_status
from rtdetr_slurm.runs.tao import last_word


class StageRun:
    """One start of a stage, or of one task of its array."""

    def __init__(self, run: Run, allocation: Allocation, stop: StopRequest) -> None:
        self.run, self.allocation, self.stop = run, allocation, stop
        self.task = allocation.task
        self.action = get_action(self.task.stage.action)
        self.engine = self.task.stage.launch.engine
        self.endurance = self.task.stage.launch.endurance
        self.start = Start(claim_id(run.id, self.task.name), allocation.restart)
        self.results = ResultsFolder(run, self.task, self.start, allocation.job_id)
        self._spec: dict[str, Any] = {}
        self._reached_before = self.results.reached()
        self._in_vain = 0
        self._history = History()
        self._began = time.monotonic()

    def execute(self) -> int:
        """Start, watch, judge; returns the exit code."""
        pid = os.getpid()
        facts = {"pid": pid, **process_facts(str(pid))}
        last_sign = last_alive(self.run, self.task)
        self._history = history_of(self._events(), self.allocation.restart, last_sign)
        self._record(
            "started",
            **facts,
            manifest_sha256=sha256_of(self.run.path / RUN_JSON),
            reached=self._reached_before,
            seconds_before=round(self._history.seconds, 1),
            **({} if last_sign is None else {"last_sign": last_sign.isoformat()}),
        )
        self._note(self.allocation.mail_first_start_only)
        self._note(lambda: (self.run.path / SUMMARY_JSON).unlink(missing_ok=True))
        try:
            self.results.look_for_claim()
            events = self._events()
            if is_to_end(events):
                verdict = Verdict(Kind.CANCELLED, CANCELLED_BEFORE, FailureClass.CANCELLED, True)
                return self._close(verdict)
            self._in_vain = starts_in_vain(events, self.allocation.restart, self._reached_before)
            if (ended := self._before_step()) is not None:
                return self._close(ended)
            self._prepare()
            self.allocation.check()
            self._note(lambda: tell_start(self.run, self.allocation.job_id))
            verdict = decide(self._witnesses(self._run_step()))
        except (UserError, OSError) as error:
            problem = explained(error)
            verdict = Verdict(Kind.FAILED, str(problem), problem.failure_class, True)
        except Exception as error:
            reason = f"the launch failed: {error!r}"
            self._close(Verdict(Kind.FAILED, reason, FailureClass.UNKNOWN, True))
            raise
        return self._close(verdict)

    # --- before the step -------------------------------------------------------------------
    def _prepare(self) -> None:
        """Folders, the spec with its inputs filled in, and the claim on the results folder.

        Raises:
            ActionError: a folder cannot be made, an input has nothing to be filled with, or the
                results folder is another's.
        """
        self._make_folders()
        self.results.look()
        inputs = resolve_inputs(self.run, self.task)
        if self.engine == "tao" and self.results.begun and self.action.resumable:
            inputs += going_on(self.results.path, self.run.spec, self.results.verify)
        self._spec = filled_in(self.run.spec, inputs)
        values = [asdict(one) for one in inputs]
        shown = tao_spec(self._spec) if self.engine == "tao" else self._spec
        write_atomic(self.run.task_spec(self.task), spec_text(shown), mode=PRIVATE_FILE)
        folder = self.run.job_dir(self.task.name)
        text = json.dumps(values, indent=2) + "\n"
        write_atomic(folder / INPUTS_JSON, text, mode=PRIVATE_FILE)
        self._record("resolved", inputs=values)
        self.results.take(self._spec)
        self.results.say_started(self._spec)

    def _make_folders(self) -> None:
        folder = self.run.job_dir(self.task.name)
        try:
            for old in folder.glob("node-*"):  # from an earlier start
                shutil.rmtree(old)
            folder.mkdir(mode=PRIVATE_DIR, exist_ok=True)
            for rank in range(self.task.stage.resources.nodes):
                self.run.node_dir(self.task, rank).mkdir(mode=PRIVATE_DIR)
        except OSError as error:
            raise ActionError(f"cannot make folders in {folder}: {error.strerror}") from error
        self.results.make()

    def _before_step(self) -> Verdict | None:
        """Whether the starts before this one leave it anything to do."""
        return before_step(
            self.endurance,
            self._history,
            self.allocation.restart - self.allocation.first,
            seconds_needed=self.task.stage.launch.signal_lead_s,
            nodes=self.allocation.nodes() if self._history.excluded else (),
            starts_in_vain=self._in_vain,
        )

    # --- the step --------------------------------------------------------------------------
    def _run_step(self) -> StepEnd:
        resume = self.results.begun and self.action.resumable
        step = Step(self.run, self.allocation, self.start, number=0, resume=resume)
        return step.execute(
            self.stop,
            self._why,
            seconds_left=self._seconds_left(),
            sign_of_life=lambda: self._note(lambda: say_alive(self.run, self.task)),
        )

    def _seconds_left(self) -> float | None:
        """What job.max_hours leaves to this start, from now on."""
        left = seconds_left(self.endurance, self._history)
        return None if left is None else left - (time.monotonic() - self._began)

    def _why(self, signum: int) -> StopReason:
        reason = self.allocation.why_stopped(signum, self.task.stage.launch.signal_lead_s)
        cancelled = is_to_end(self._events())
        return replace(reason, why=FailureClass.CANCELLED) if cancelled else reason

    def _events(self) -> list[Event]:
        """What is on record of this task; a damaged record keeps it neither from its start nor
        from its stop."""
        try:
            return task_events(self.run.events(), self.task, self.allocation.first)
        except UserError as error:
            say(f"whether somebody has cancelled it is not known: {error}")
            return []

    # --- after the step --------------------------------------------------------------------
    def _witnesses(self, end: StepEnd) -> Witnesses:
        lines = [line for line in read_status(self.results.status.path) if self.start.wrote(line)]
        resume = self.results.resume_point(self._spec)
        kpis = {name for line in lines for name in line.get("kpi", {})}
        log = self.run.log_path(self.task.stage.name, self.allocation.job_id)
        left = self._seconds_left()
        return Witnesses(
            exit_code=end.exit_code,
            interruption=end.interruption,
            last_line=last_word(lines),
            refusal=read_node_errors(self.run, self.task),
            artefact_problem=self.results.proof_problem(self._spec, kpis),
            resume_from=None if resume is None else resume.path.name,
            progressed=self.results.reached() > self._reached_before,
            starts_in_vain=self._in_vain + 1,
            requeue_allowed=self.task.stage.launch.requeue,
            restart=self.allocation.restart - self.allocation.first,
            history=self._history,
            endurance=self.endurance,
            out_of_hours=left is not None and left <= self.task.stage.launch.signal_lead_s,
            nodes=self.allocation.nodes() if end.exit_code else (),
            ranks_per_node=self.task.stage.resources.gpus_per_node,
            log_tail=tail(log),
        )

    def _close(self, verdict: Verdict) -> int:
        """Write down the end, requeue where that is the verdict, return the exit code."""
        if verdict.kind is Kind.REQUEUE:
            verdict = self._requeue(verdict)
        # TAO's own last line says neither whose it is nor, often, how it ended.
        closes = self.results.holds and (verdict.write_status or self.engine == "tao")
        if verdict.kind is Kind.SUCCESS and closes:
            self._note(
                lambda: self.results.status.write(Status.SUCCESS, f"{self.task.name} has succeeded")
            )
        if verdict.kind in (Kind.FAILED, Kind.CANCELLED) and closes:
            failure_class, reason = verdict.failure_class or FailureClass.UNKNOWN, verdict.reason
            self._note(lambda: self.results.status.fail(failure_class, reason))
        if verdict.kind is not Kind.REQUEUE:
            self._record_end(verdict)
        say(f"{verdict.kind.value}: {verdict.reason}" if verdict.reason else verdict.kind.value)
        return verdict.exit_code

    def _requeue(self, verdict: Verdict) -> Verdict:
        """Write down that the job goes back, and have it do so; the verdict that comes of it."""
        exclusion = self._exclusion(verdict)
        self._record(
            "requeued",
            reason=verdict.reason,
            failure_class=verdict.failure_class,
            bad_nodes=verdict.bad_nodes,
            excluded=exclusion.nodes or self._history.excluded,
            **({} if verdict.refusal is None else {"refusal": verdict.refusal}),
            **({"misplaced": True} if verdict.misplaced else {}),
            **({"by_slurm": True} if verdict.by_slurm else {}),
        )
        if verdict.write_status and self.results.holds:
            self._note(lambda: self.results.status.write(Status.PREEMPTED, verdict.reason))
        try:
            self.allocation.requeue(exclusion.nodes)
        except UserError as error:
            reason = f"{verdict.reason}, but the requeue was refused: {error}"
            return Verdict(Kind.FAILED, reason, verdict.failure_class, True)
        return verdict

    def _exclusion(self, verdict: Verdict) -> Exclusion:
        """The nodes that the job leaves out from now on; none where that stays as it is."""
        history = self._history
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
        if self.action.trains and self.results.holds:
            self._note(
                lambda: data.update(
                    checkpoints=verified_checkpoints(self.results.path, self.results.verify)
                )
            )
        elif verdict.kind is Kind.SUCCESS:
            self._note(
                lambda: data.update(made=made_files(self.action, self.results.path, self._spec))
            )
        self._record("finished", **data)
        if self.results.holds:
            self._note(lambda: keep_efficiency(self.run, self.task))
        self._note(lambda: keep_summary(self.run))
        self._tell_end(verdict)

    def _tell_end(self, verdict: Verdict) -> None:
        failure = None
        if verdict.kind is Kind.FAILED and verdict.failure_class is not None:
            failure = Failure(verdict.failure_class, verdict.reason)
        self._note(lambda: tell_end(self.run, self.task, self.allocation.job_id, failure))

    def _record(self, event: str, **data: Any) -> None:
        facts = self.task.event_facts(self.allocation.job_id)
        restart = self.allocation.restart
        self._note(lambda: self.run.record(event, **facts, restart=restart, **data))

    def _note(self, write: Callable[[], None]) -> None:
        """Write something down; a full disk must not keep the rest from happening."""
        try:
            write()
        except OSError as error:
            say(f"cannot read or write {error.filename or 'the record'}: {error.strerror}")
        except UserError as error:
            say(str(error))
