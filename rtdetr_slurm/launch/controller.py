"""The controller: one process on node 0 that starts, watches and judges one stage.

submitit calls it in the batch step. It installs its own signal handlers (submitit's ignore
SIGTERM and requeue by themselves), starts the node wrappers, and at the end writes down what
happened, whatever happened.
"""

from __future__ import annotations

import math
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from types import FrameType
from typing import Any

from rtdetr_slurm.actions import get_action
from rtdetr_slurm.contract import (
    CHECKPOINT_GLOB,
    STOP_SIGNAL,
    ExitCode,
    FailureClass,
    Status,
)
from rtdetr_slurm.errors import ActionError, UserError
from rtdetr_slurm.launch.host import Host, make_host, say
from rtdetr_slurm.launch.outcome import Ending, Interruption, Kind, Outcome, Stop, decide
from rtdetr_slurm.launch.records import read_node_errors
from rtdetr_slurm.plan.model import Stage
from rtdetr_slurm.runs.checkpoints import (
    list_checkpoints,
    resume_candidates,
    resume_point,
    verify_checkpoint,
)
from rtdetr_slurm.runs.failures import Failure
from rtdetr_slurm.runs.logs import tail
from rtdetr_slurm.runs.run import Run, open_run, status_path
from rtdetr_slurm.runs.status import StatusLog, read_status

_POLL_S = 0.5
_SIGNAL_EVERY_S = 5.0
_RECORD_MARGIN_S = 10.0
"""Part of the lead time that is kept for judging and requeueing, half of a short one at most."""
_SUBMITTED_WAIT_S = 30.0


@dataclass(frozen=True)
class Controller:
    """What submitit pickles: the run folder and the stage, nothing else."""

    run_dir: str
    stage: str

    def __call__(self) -> None:
        """Run the stage; leaves by SystemExit with the stage's exit code unless that is 0."""
        run = open_run(Path(self.run_dir))
        stage = run.stage(self.stage)
        code = StageRun(run, stage, make_host(run, stage, os.environ)).execute()
        if code != ExitCode.OK:
            sys.exit(code)


class StopRequest:
    """The first signal that asked for an end."""

    def __init__(self) -> None:
        self.signum: int | None = None
        for signum in (signal.SIGUSR2, signal.SIGTERM):
            signal.signal(signum, self._note)

    def _note(self, signum: int, _frame: FrameType | None) -> None:
        if self.signum is None:
            self.signum = signum


class StageRun:
    """One start of one stage."""

    def __init__(self, run: Run, stage: Stage, host: Host) -> None:
        self.run, self.stage, self.host = run, stage, host
        self.stop = StopRequest()
        self.results = Path(stage.results_dir)
        self.status = StatusLog(status_path(stage))
        self.interruption: Interruption | None = None
        self._lines_before = 0
        self._checkpoint_before: tuple[Any, ...] | None = None

    def execute(self) -> int:
        """Start, watch, judge; returns the exit code."""
        self._wait_until_submission_is_recorded()
        self._record("started", restart=self.host.restart, host=os.uname().nodename)
        try:
            self._prepare()
            self.host.check(self.stage)
            exit_code = self._run_step()
            outcome = decide(self._ending(exit_code))
        except UserError as error:
            outcome = Outcome(Kind.FAILED, str(error), error.failure_class, True)
        except Exception as error:
            reason = f"the controller failed: {error!r}"
            self._close(Outcome(Kind.FAILED, reason, FailureClass.UNKNOWN, True))
            raise
        return self._close(outcome)

    def _wait_until_submission_is_recorded(self) -> None:
        # events.jsonl has one writer at a time: until `submitted` is there, it is the submitter.
        deadline = time.monotonic() + _SUBMITTED_WAIT_S
        while time.monotonic() < deadline and self.stop.signum is None:
            if any(e.get("job_id") == self.host.job_id for e in self.run.events()):
                return
            time.sleep(_POLL_S)

    def _prepare(self) -> None:
        nodes = self.run.node_dir(self.stage.name, 0).parent
        if nodes.exists():  # from an earlier start
            shutil.rmtree(nodes)
        for rank in range(self.stage.resources.nodes):
            self.run.node_dir(self.stage.name, rank).mkdir(parents=True)
        try:
            self.results.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise ActionError(
                f"cannot make results_dir {self.results}: {error.strerror}"
            ) from error
        self._lines_before = len(read_status(self.status.path))
        self._checkpoint_before = self._newest_checkpoint()

    def _run_step(self) -> int:
        argv = self.host.command(self.run, self.stage)
        say(f"starts {' '.join(argv)}")
        # A session of its own, so that the whole of it can be ended on the local machine.
        with subprocess.Popen(
            argv, env=self.host.environment(os.environ), start_new_session=True
        ) as process:
            self._supervise(process)
        code = process.returncode if process.returncode >= 0 else 128 - process.returncode
        if code != ExitCode.OK and self.interruption is None and self.host.quietly_preempted():
            self.interruption = Interruption.PREEMPTED
        return code

    def _supervise(self, process: subprocess.Popen[bytes]) -> None:
        next_signal = deadline = 0.0
        while process.poll() is None:
            time.sleep(_POLL_S)
            signum = self.stop.signum
            if signum is None:
                continue
            now = time.monotonic()
            if self.interruption is None:
                stop = self._why(signum)
                self.interruption = stop.why
                next_signal = math.inf if stop.by_scheduler else 0.0
                lead = self.stage.launch.signal_lead_s
                deadline = now + max(lead - _RECORD_MARGIN_S, lead / 2)
                say(f"asks the training to stop ({self.interruption.value})")
            if now > deadline:
                say("the training did not stop in time; it is killed")
                self._signal(process, signal.SIGKILL)
                deadline = now + _SIGNAL_EVERY_S
            elif now >= next_signal:
                self._signal(process, STOP_SIGNAL)
                next_signal = now + _SIGNAL_EVERY_S

    def _signal(self, process: subprocess.Popen[bytes], signum: int) -> None:
        try:
            self.host.signal_step(process, signum)
        except (UserError, OSError) as error:
            say(f"signal {signum} could not be sent, and will be sent again: {error}")

    def _why(self, signum: int) -> Stop:
        stop = self.host.why_stopped(signum, self.stage.launch.signal_lead_s)
        cancelled = any(e["event"] == "cancelling" for e in self.run.events())
        return replace(stop, why=Interruption.CANCELLED) if cancelled else stop

    def _ending(self, exit_code: int) -> Ending:
        lines = read_status(self.status.path)[self._lines_before :]
        trains = get_action(self.stage.action).trains
        resume = resume_point(self.results)[0] if trains else None
        return Ending(
            exit_code=exit_code,
            interruption=self.interruption,
            last_line=lines[-1] if lines else None,
            node_error=read_node_errors(self.run, self.stage),
            checkpoint_problem=self._checkpoint_problem() if trains else None,
            resume_from=None if resume is None else resume.path.name,
            progressed=self._newest_checkpoint() not in (None, self._checkpoint_before),
            requeue_allowed=self.stage.launch.requeue,
            log_tail=tail(self.run.log_path(self.host.job_id)),
        )

    def _checkpoint_problem(self) -> str | None:
        checkpoints = list_checkpoints(self.results)
        if not checkpoints:
            return f"there is no {CHECKPOINT_GLOB} in {self.results}"
        return verify_checkpoint(checkpoints[-1].path)

    def _newest_checkpoint(self) -> tuple[Any, ...] | None:
        """What tells one state of the newest resumable file from another, without reading it."""
        candidates = resume_candidates(self.results)
        if not candidates:
            return None
        facts = candidates[0].path.stat()
        return (candidates[0].path.name, facts.st_size, facts.st_mtime_ns, facts.st_ino)

    def _close(self, outcome: Outcome) -> int:
        """Write down the end, requeue where that is the verdict, return the exit code."""
        if outcome.kind is Kind.REQUEUE:
            self._record("requeued", reason=outcome.reason)
            if outcome.write_status:
                self._note(lambda: self.status.write(Status.PREEMPTED, outcome.reason))
            try:
                self.host.requeue()
            except UserError as error:
                reason = f"{outcome.reason}, but the requeue was refused: {error}"
                outcome = Outcome(Kind.FAILED, reason, outcome.failure_class, True)
        if outcome.kind in (Kind.FAILED, Kind.CANCELLED) and outcome.write_status:
            failure_class, reason = outcome.failure_class or FailureClass.UNKNOWN, outcome.reason
            self._note(lambda: self.status.fail(failure_class, reason))
        if outcome.kind is not Kind.REQUEUE:
            self._record_end(outcome)
        say(f"{outcome.kind.value}: {outcome.reason}" if outcome.reason else outcome.kind.value)
        return outcome.exit_code

    def _record_end(self, outcome: Outcome) -> None:
        data: dict[str, Any] = {"state": outcome.kind.value, "reason": outcome.reason}
        if outcome.failure_class is not None:
            data["failure_class"] = outcome.failure_class.value
            say(Failure(outcome.failure_class, outcome.reason).advice)
        self._record("finished", **data)

    def _record(self, event: str, **data: Any) -> None:
        facts = {"stage": self.stage.name, "job_id": self.host.job_id, **data}
        self._note(lambda: self.run.record(event, **facts))

    def _note(self, write: Callable[[], None]) -> None:
        """Write something down; a full disk must not keep the rest from happening."""
        try:
            write()
        except OSError as error:
            say(f"cannot write {error.filename or 'the record'}: {error.strerror}")
