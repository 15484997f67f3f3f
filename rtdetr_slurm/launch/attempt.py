"""One start of an action in its results folder: what goes before its step, and what comes of it.

A stage that runs its action once has one in each start of its job; a worker of a search has one for
every start of a trial.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from types import MappingProxyType
from typing import Any

from rtdetr_slurm.actions import get_action
from rtdetr_slurm.contract import ExitCode, FailureClass, Status
from rtdetr_slurm.errors import ActionError
from rtdetr_slurm.files import PRIVATE_DIR, PRIVATE_FILE, write_atomic
from rtdetr_slurm.launch.allocation import Allocation, StopReason
from rtdetr_slurm.launch.arrivals import COPY, NODE, Part
from rtdetr_slurm.launch.inputs import INPUTS_JSON, Resolved, filled_in, resolve_inputs
from rtdetr_slurm.launch.node_errors import read_node_errors
from rtdetr_slurm.launch.results import ResultsFolder
from rtdetr_slurm.launch.step import Step, StepEnd, StopRequest
from rtdetr_slurm.launch.tao import going_on, tao_spec
from rtdetr_slurm.launch.verdict import Kind, Verdict, Witnesses
from rtdetr_slurm.plan.model import StageTask
from rtdetr_slurm.resolved_spec import spec_text, with_values
from rtdetr_slurm.runs.claim import Start
from rtdetr_slurm.runs.logs import tail
from rtdetr_slurm.runs.run import Run
from rtdetr_slurm.runs.status import read_status
from rtdetr_slurm.runs.tao import last_word


class Attempt:
    """A start of a task's action.

    Args:
        task: whose results folder it works in.
        start: the claim on that folder, and the number of this start under it.
        log_start: bytes of the job's log that are about something else.

    Attributes:
        spec: that the action runs with; empty before `prepare`.
        reached_before: how far the training was: epochs, and steps of the next one.
    """

    def __init__(
        self, run: Run, allocation: Allocation, task: StageTask, start: Start, log_start: int = 0
    ) -> None:
        self.run, self.allocation, self.task, self.start = run, allocation, task, start
        self.action = get_action(task.stage.action)
        self.engine = task.stage.launch.engine
        self.results = ResultsFolder(run, task, start, allocation.job_id)
        self.spec: dict[str, Any] = {}
        self.reached_before = self.results.reached()
        self._log = run.log_path(task.stage.name, allocation.job_id)
        self._log_start = log_start

    def prepare(
        self,
        on_resolved: Callable[[list[Resolved]], object],
        more: Sequence[Resolved] = (),
        values: Mapping[str, Any] = MappingProxyType({}),
    ) -> None:
        """Folders, the spec with its inputs filled in, and the claim on the results folder.

        Args:
            on_resolved: is told what the inputs were filled with, before the folder is claimed.
            more: files besides those of the stage's inputs.
            values: by dotted paths, that take the place of the frozen spec's.

        Raises:
            ActionError: a folder cannot be made, an input has nothing to be filled with, or the
                results folder is another's.
        """
        self._make_folders()
        self.results.look()
        inputs = [*resolve_inputs(self.run, self.task), *more]
        if self.engine == "tao" and self.results.begun and self.action.resumable:
            inputs += going_on(self.results.path, self.run.spec, self.results.verify)
        self.spec = filled_in(with_values(self.run.spec, values), inputs)
        shown = tao_spec(self.spec) if self.engine == "tao" else self.spec
        write_atomic(self.run.task_spec(self.task), spec_text(shown), mode=PRIVATE_FILE)
        folder = self.run.job_dir(self.task.name)
        text = json.dumps([asdict(one) for one in inputs], indent=2) + "\n"
        write_atomic(folder / INPUTS_JSON, text, mode=PRIVATE_FILE)
        on_resolved(inputs)
        self.results.take(self.spec)
        self.results.say_started(self.spec)

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

    def execute(
        self,
        stop: StopRequest,
        why: Callable[[int], StopReason],
        *,
        seconds_left: Callable[[], float | None],
        sign_of_life: Callable[[], None],
        wanted: Callable[[], bool] = lambda: True,
        number: int = 0,
    ) -> StepEnd:
        """Run it; first, in a step of their own, its nodes make the copies that it is to read, so
        that none begins before the others can.

        Args:
            stop, why, sign_of_life, wanted: as `Step.execute` has them.
            seconds_left: as there, from now on.
            number: of the step within its job's start.
        """
        end = StepEnd(ExitCode.OK)
        for part in (COPY, NODE) if self.task.stage.local_copy else (NODE,):
            if end.exit_code == ExitCode.OK:
                end = self._step(number, part).execute(
                    stop,
                    why,
                    seconds_left=seconds_left(),
                    sign_of_life=sign_of_life,
                    wanted=wanted,
                )
        return end

    def _step(self, number: int, part: Part) -> Step:
        resume = self.results.begun and self.action.resumable
        return Step(
            self.run,
            self.allocation,
            self.task,
            self.start,
            number=number,
            resume=resume,
            part=part,
        )

    def witnesses(self, end: StepEnd) -> Witnesses:
        """What is known of the step that has ended, but for what concerns its job."""
        lines = [line for line in read_status(self.results.status.path) if self.start.wrote(line)]
        resume = self.results.resume_point(self.spec)
        kpis = {name for line in lines for name in line.get("kpi", {})}
        return Witnesses(
            exit_code=end.exit_code,
            interruption=end.interruption,
            last_line=last_word(lines),
            refusal=read_node_errors(self.run, self.task),
            artefact_problem=self.results.proof_problem(self.spec, kpis),
            resume_from=None if resume is None else resume.path.name,
            progressed=self.results.reached() > self.reached_before,
            nodes=self.allocation.nodes() if end.exit_code else (),
            ranks_per_node=self.task.stage.resources.gpus_per_node,
            log_tail=tail(self._log, self._log_start),
        )

    def close(self, verdict: Verdict) -> None:
        """Give status.json its last line, where the action has not written it.

        Raises:
            OSError: it cannot be written.
            Superseded: the folder is another start's by now.
        """
        if not self.results.holds:
            return
        # TAO's own last line says neither whose it is nor, often, how it ended.
        closes = verdict.write_status or self.engine == "tao"
        if verdict.kind is Kind.REQUEUE and verdict.write_status:
            self.results.status.write(Status.PREEMPTED, verdict.reason)
        elif verdict.kind is Kind.SUCCESS and closes:
            reason = verdict.reason or f"{self.task.name} has succeeded"
            self.results.status.write(Status.SUCCESS, reason)
        elif verdict.kind in (Kind.FAILED, Kind.CANCELLED) and closes:
            failure_class = verdict.failure_class or FailureClass.UNKNOWN
            self.results.status.fail(failure_class, verdict.reason)
