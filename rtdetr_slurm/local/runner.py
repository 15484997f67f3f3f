"""The chain runner: `python -m rtdetr_slurm.local.runner RUN STAGE FIRST`.

Runs the stages of a run one after another, as Slurm would: a stage that has succeeded already, or
whose dependencies cannot come true any more, is left out, a stage at its time limit is warned and
then ended. STAGE is the first one that it is for, and FIRST the number of its start.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType

from rtdetr_slurm.contract import END_SIGNALS, Env, ExitCode, FailureClass
from rtdetr_slurm.errors import RequestError, UserError, explained
from rtdetr_slurm.lifetime import ends_with_me, signal_name
from rtdetr_slurm.local.processes import local_jobs, submission_of
from rtdetr_slurm.plan.model import Dependency, StageTask
from rtdetr_slurm.runs.claim import claim_id
from rtdetr_slurm.runs.processes import process_facts
from rtdetr_slurm.runs.report import keep_summary, stage_reports
from rtdetr_slurm.runs.run import Run, open_run, stage_command
from rtdetr_slurm.runs.state import (
    NEVER_STARTED,
    StageState,
    first_start,
    recorded_end,
    restart_of,
    task_events,
)
from rtdetr_slurm.runs.status import close_status

_POLL_S = 0.2
_OTHER_RUN_POLL_S = 2.0
_LAST_LINE_S = 1.0
"""Time for the kernel to end what a killed stage has started, so that nothing is written behind
the end."""


class Runner:
    """One run on this machine, from its first stage to its last."""

    def __init__(self, run: Run) -> None:
        self.run = run
        self.job_id = str(os.getpid())
        self.asked_to_stop = False
        self._child: subprocess.Popen[bytes] | None = None
        self._states: dict[str, StageState] = {}
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, self._stop)

    def execute(self) -> int:
        """Run all that can run; returns 0 when every stage has succeeded."""
        self._record_submitted()
        for task in self.run.plan.tasks():
            self._states[task.name] = self._one(task)
        keep_summary(self.run)
        good = all(state is StageState.SUCCESS for state in self._states.values())
        return ExitCode.OK if good else ExitCode.FAILED

    def _record_submitted(self) -> None:
        """Say whose the stages are, where whoever started this has not lived to do so."""
        facts = {"job_id": self.job_id, **process_facts(self.job_id)}
        events = self.run.events()
        for stage in self.run.plan.stages:
            own = [one for task in stage.tasks() for one in task_events(events, task)]
            if submission_of(own) is None:
                self.run.record("submitted", stage=stage.name, restart=first_start(own), **facts)

    def _one(self, task: StageTask) -> StageState:
        own = task_events(self.run.events(), task)
        if (end := recorded_end(own)) is not None and end["state"] == StageState.SUCCESS.value:
            return StageState.SUCCESS
        for dependency in task.stage.depends_on:
            if not self._comes_true(dependency, task) and not self.asked_to_stop:
                return StageState.SKIPPED  # the reader of the record sees why
        if self.asked_to_stop:
            self._record_cancelled(task)
            return StageState.CANCELLED
        code = self._start(task)
        return StageState.SUCCESS if code == ExitCode.OK else StageState.FAILED

    def _comes_true(self, dependency: Dependency, task: StageTask) -> bool:
        """Whether the stage may start as far as this dependency goes; waits where it must."""
        origin = dependency.on
        if origin.run is not None:
            states = self._states_of(Path(origin.run), origin.stage)
        elif dependency.kind == "aftercorr":
            states = [self._states[StageTask(self.run.plan.stage(origin.stage), task.index).name]]
        else:
            states = [self._states[one.name] for one in self.run.plan.stage(origin.stage).tasks()]
        succeeded = all(state is StageState.SUCCESS for state in states)
        return dependency.kind == "afterany" or succeeded

    def _states_of(self, run_dir: Path, stage: str) -> list[StageState]:
        """The states of another run's stage, once it has ended, or its runner has."""
        while not self.asked_to_stop:
            try:
                states = [one.state for one in stage_reports(run_dir, stage, local_jobs)]
            except RequestError:
                return [StageState.UNKNOWN]
            if all(state.ended for state in states):
                return states
            time.sleep(_OTHER_RUN_POLL_S)
        return [StageState.UNKNOWN]

    def _start(self, task: StageTask) -> int:
        """Run one stage to its end; returns its exit code."""
        number = self._number(task)
        limit = task.stage.resources.time_min
        end = None if limit is None else time.monotonic() + 60 * limit
        warned = False
        log = self.run.log_path(task.stage.name, task.job_id(self.job_id))
        with log.open("ab") as output, _end_signals_blocked():
            self._child = subprocess.Popen(
                self.command(task),
                env=self._environment(task),
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,
                # It has an end to write down, so it is asked to end as by `cancel`.
                preexec_fn=ends_with_me(signal.SIGTERM),
            )
        if self.asked_to_stop:  # the signal came while the child was being made
            self._child.terminate()
        overdue = False
        while self._child.poll() is None:
            time.sleep(_POLL_S)
            left = None if end is None else end - time.monotonic()
            if left is not None and left < 0:
                overdue = True
                self._child.kill()
            elif left is not None and left < task.stage.launch.signal_lead_s and not warned:
                warned = True
                self._child.send_signal(signal.SIGUSR2)
        code = self._child.wait()
        if code < 0:
            self._record_killed(task, number, -code, overdue=overdue)
        return code

    def command(self, task: StageTask) -> list[str]:
        """What a stage's job is on this machine."""
        return stage_command(self.run.path, task.stage, self._number(task))

    def _number(self, task: StageTask) -> int:
        """Of the start that comes now."""
        own = task_events(self.run.events(), task)
        begun = [restart_of(one) for one in own if one["event"] in ("started", "finished")]
        return max(begun) + 1 if begun else first_start(own)

    def _environment(self, task: StageTask) -> dict[str, str]:
        env = {**os.environ, Env.LOCAL_JOB_ID: self.job_id}
        for name in (Env.LOCAL_TASK, Env.WARNED):  # WARNED is of a Slurm job around this one
            env.pop(name, None)
        if task.index is not None:
            env[Env.LOCAL_TASK] = str(task.index)
        return env

    def _stop(self, _signum: int, _frame: FrameType | None) -> None:
        self.asked_to_stop = True
        if self._child is not None and self._child.poll() is None:
            self._child.terminate()

    def _record_cancelled(self, task: StageTask) -> None:
        self.run.record(
            "finished",
            **task.event_facts(task.job_id(self.job_id)),
            restart=self._number(task),
            **NEVER_STARTED,
        )

    def _record_killed(self, task: StageTask, number: int, signum: int, *, overdue: bool) -> None:
        """Write down the end of a stage that could not do so itself."""
        own = task_events(self.run.events(), task)
        if recorded_end(own) is not None:
            return
        time.sleep(_LAST_LINE_S)
        why = FailureClass.UNKNOWN
        reason = f"the process of the stage was killed by {signal_name(signum)}"
        if overdue:
            why = FailureClass.TIMEOUT
            reason = f"the time limit of {task.stage.resources.time_min} minutes was over"
        elif self.asked_to_stop:
            why, reason = FailureClass.CANCELLED, "cancelled on request"
        state = StageState.CANCELLED if why is FailureClass.CANCELLED else StageState.FAILED
        close_status(task.results_dir, claim_id(self.run.id, task.name), why, reason)
        facts = task.event_facts(task.job_id(self.job_id)) | {"restart": number}
        self.run.record(
            "finished", **facts, state=state.value, failure_class=why.value, reason=reason
        )


@contextmanager
def _end_signals_blocked() -> Iterator[None]:
    """A child started in here gets these signals once it can hear them (launch.step), and is not
    killed by one that comes before."""
    before = signal.pthread_sigmask(signal.SIG_BLOCK, END_SIGNALS)
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def main() -> int:
    try:
        run, stage, first = open_run(Path(sys.argv[1])), sys.argv[2], int(sys.argv[3])
        events, tasks = run.events(), run.plan.stage(stage).tasks()
        if any(first_start(task_events(events, task)) > first for task in tasks):
            raise RequestError(f"{stage} was submitted once more; this runner does nothing")
        return Runner(run).execute()
    except (UserError, OSError) as error:
        problem = explained(error)
        print(f"rtdetr-slurm: {problem}", file=sys.stderr, flush=True)
        return problem.exit_code


if __name__ == "__main__":
    sys.exit(main())
