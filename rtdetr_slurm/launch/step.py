"""One step of a job: starts the node wrappers, watches them, passes stop signals on.

A stage runs one step; a worker of a search runs one after another.
"""

from __future__ import annotations

import math
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from types import FrameType

from rtdetr_slurm.contract import END_SIGNALS, STOP_SIGNAL, Env, ExitCode, FailureClass
from rtdetr_slurm.errors import UserError, explained
from rtdetr_slurm.launch.allocation import Allocation, StopReason
from rtdetr_slurm.launch.arrivals import NODE, WATCHES, Part, Watch
from rtdetr_slurm.launch.log import say
from rtdetr_slurm.launch.rendezvous import MASTER_HOST, master_port, reserve_port
from rtdetr_slurm.lifetime import ends_with_me
from rtdetr_slurm.plan.model import StageTask
from rtdetr_slurm.records import BadRecord, read_file
from rtdetr_slurm.runs.claim import Start
from rtdetr_slurm.runs.run import Run, python_archive

_POLL_S = 0.5
_SIGNAL_EVERY_S = 5.0
_SIGN_EVERY_S = 30.0
LOOK_EVERY_S = 2.0
"""How often it is asked whether a step is still wanted."""
_KILLED_S = 60.0
"""How long a step may take to end when it is killed; what the kernel holds may never."""
_RECORD_MARGIN_S = 10.0
"""Part of the lead time that is kept for judging and requeueing, half of a short one at most."""


class StopRequest:
    """The first signal that asked this process for an end.

    One that came while the batch script's module lines ran, or before this process was ready, is
    in the note that the script keeps; the chain runner of `local` starts it with them blocked.

    Args:
        environ: tells where the note is.
    """

    def __init__(self, environ: Mapping[str, str]) -> None:
        self.signum: int | None = None
        for signum in END_SIGNALS:
            signal.signal(signum, self._note)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, END_SIGNALS)
        # Only now: whatever comes from here on arrives.
        for name in _noted(environ.get(Env.WARNED)):
            self._note(signal.Signals[f"SIG{name}"], None)

    def _note(self, signum: int, _frame: FrameType | None) -> None:
        if self.signum is None:
            self.signum = signum


def _noted(path: str | None) -> list[str]:
    known = {signum.name.removeprefix("SIG") for signum in END_SIGNALS}
    try:
        words = [] if path is None else read_file(Path(path)).decode(errors="replace").split()
    except FileNotFoundError:
        return []
    except BadRecord as error:
        say(f"whether an end was asked for before this start cannot be read: {error}")
        return []
    if strange := [word for word in words if word not in known]:
        say(f"{path}: {strange[0][:40]!a} is no signal that asks for an end; it is ignored")
    return [word for word in words if word in known]


def this_code() -> list[str]:
    """What starts this very code again: the run's archive that it came from, or the package."""
    archive = getattr(getattr(__spec__, "loader", None), "archive", None)
    package = [sys.executable, "-m", "rtdetr_slurm.controller"]
    return package if archive is None else python_archive(Path(archive))


def task_words(task: StageTask) -> list[str]:
    """A task on the command line of the node wrapper: stage, task of its array, trial."""
    numbers = (task.index, task.trial)
    return [task.stage.name, *(str(number) for number in numbers if number is not None)]


def task_of_words(run: Run, words: Sequence[str]) -> StageTask:
    """What `task_words` has written.

    Raises:
        RequestError: the run has no such stage.
    """
    return StageTask(run.plan.stage(words[0]), *map(int, words[1:3]))


@dataclass(frozen=True)
class StepEnd:
    """How a step ended.

    Attributes:
        exit_code: of srun, or of the node wrapper on the local machine; 128+n for signal n.
        interruption: why it was asked to stop; None when it was not.
    """

    exit_code: int
    interruption: FailureClass | None = None


@dataclass
class _Watch:
    """What may bring a running step to its end: a signal, that its time is over, that it is not
    wanted any more, or that it does not begin."""

    stop: StopRequest
    why: Callable[[int], StopReason]
    stop_at: float
    sign_of_life: Callable[[], None]
    wanted: Callable[[], bool]
    nodes: Watch
    next_sign: float = 0.0
    next_look: float = 0.0

    def reason(self, now: float) -> StopReason | None:
        if now >= self.next_sign:
            self.sign_of_life()
            self.next_sign = now + _SIGN_EVERY_S
        if self.stop.signum is not None:
            return self.why(self.stop.signum)
        if now >= self.stop_at:
            return StopReason(FailureClass.TIMEOUT)
        if now >= self.next_look:
            self.next_look = now + LOOK_EVERY_S
            return None if self.wanted() else StopReason(FailureClass.CANCELLED)
        return None


class Step:
    """One srun of a job.

    Args:
        task: what it runs: the stage or the task that the allocation is for, or a trial.
        start: of the task's action.
        number: of the step within its job's start, with which it gives the port.
        resume: whether the engine goes on from an earlier start's checkpoints.
        part: what it does on each node.
    """

    def __init__(
        self,
        run: Run,
        allocation: Allocation,
        task: StageTask,
        start: Start,
        *,
        number: int,
        resume: bool,
        part: Part = NODE,
    ) -> None:
        self.run, self.allocation, self.task, self.start = run, allocation, task, start
        self.number, self.resume, self.part = number, resume, part

    def command(self) -> list[str]:
        """What starts the node wrapper on every node."""
        task = self.task
        wrapper = [*this_code(), self.part, str(self.run.path), *task_words(task)]
        return [*self.allocation.prefix(task.stage.resources), *wrapper]

    def environment(self, port: int) -> dict[str, str]:
        """The environment of the node wrappers.

        Args:
            port: where the ranks meet, on this node.
        """
        env = dict(os.environ)
        env[Env.MASTER_ADDR] = self.allocation.master()
        env[Env.MASTER_PORT] = str(port)
        env[MASTER_HOST] = socket.gethostname()
        env |= self.start.environment()
        env[Env.LAUNCHED] = f"{time.time():.3f}"
        env.pop(Env.RESUME, None)
        if self.resume:
            env[Env.RESUME] = "1"
        return env

    def execute(
        self,
        stop: StopRequest,
        why: Callable[[int], StopReason],
        *,
        seconds_left: float | None,
        sign_of_life: Callable[[], None],
        wanted: Callable[[], bool] = lambda: True,
    ) -> StepEnd:
        """Run it to its end, whatever brings that about.

        Args:
            why: what a stop signal means.
            seconds_left: after which it must have ended, as at a time limit; None: no limit.
            sign_of_life: called now and then while it runs.
            wanted: asked likewise; False has it stop as if somebody had cancelled it.
        """
        if seconds_left is not None:
            lead = self.task.stage.launch.signal_lead_s
            stop_at = time.monotonic() + seconds_left - lead
        else:
            stop_at = math.inf
        if stop.signum is not None:
            reason = why(stop.signum)
            say(f"starts nothing, for it has been asked to stop already ({reason.why.value})")
            return StepEnd(ExitCode.INTERRUPTED, reason.why)
        argv = self.command()
        own = (self.allocation.job_id, self.allocation.restart, self.number)
        reserved = reserve_port(*own)
        if (port := reserved.getsockname()[1]) != (first := master_port(*own)):
            say(f"port {first} is in use by another process, so the ranks meet at {port}")
        stage = self.task.stage
        if stage.launch.engine == "tao" and stage.resources.nodes > 1:
            reserved.close()  # TAO binds it once itself, without reuse, and falls back if it cannot
        say(f"starts {' '.join(argv)}")
        # A session of its own, so that the whole of it can be ended on the local machine.
        sign_of_life()  # also of a step that is over at once
        nodes = WATCHES[self.part](self.run, self.task, time.monotonic())
        watch = _Watch(stop, why, stop_at, sign_of_life, wanted, nodes)
        with (
            reserved,
            subprocess.Popen(
                argv,
                env=self.environment(port),
                stdin=subprocess.DEVNULL,
                start_new_session=True,
                preexec_fn=ends_with_me(),
            ) as process,
        ):
            interruption = self._supervise(process, watch)
        code = process.returncode if process.returncode >= 0 else 128 - process.returncode
        if code != ExitCode.OK and interruption is None and self.allocation.quietly_preempted():
            interruption = FailureClass.PREEMPTED
        return StepEnd(code, interruption)

    def _supervise(self, process: subprocess.Popen[bytes], watch: _Watch) -> FailureClass | None:
        interruption: FailureClass | None = None
        next_signal = deadline = 0.0
        while process.poll() is None:
            time.sleep(_POLL_S)
            now = time.monotonic()
            if interruption is None:
                if late := watch.nodes.late(now):
                    self._refuse(watch.nodes, late)
                    self._kill(process)
                    break
                reason = watch.reason(now)
                if reason is None:
                    continue
                interruption = reason.why
                next_signal = math.inf if reason.by_scheduler else 0.0
                lead = self.task.stage.launch.signal_lead_s
                if reason.by_scheduler:
                    lead = min(lead, self.allocation.kill_wait_s())
                deadline = now + max(lead - _RECORD_MARGIN_S, lead / 2)
                say(f"asks the training to stop ({interruption.value})")
            if now > deadline:
                say("the training did not stop in time; it is killed")
                self._kill(process)
            elif now >= next_signal:
                self._signal(process, STOP_SIGNAL)
                next_signal = now + _SIGNAL_EVERY_S
        return interruption

    def _refuse(self, nodes: Watch, late: Sequence[int]) -> None:
        """Write down for nodes that do not get on that they have not started."""
        say(f"{nodes.said} {', '.join(map(str, late))} (counted from 0); it is killed")
        try:
            nodes.refuse(late, self.allocation.nodes())
        except OSError as error:
            say(f"this cannot be written down: {explained(error)}")

    def _kill(self, process: subprocess.Popen[bytes]) -> None:
        """End every process of the step; srun alone where it waits for what does not end."""
        give_up = time.monotonic() + _KILLED_S
        while process.poll() is None:
            if time.monotonic() < give_up:
                self._signal(process, signal.SIGKILL)
            else:
                say("a killed process does not end, which is left to the scheduler")
                process.kill()
            with suppress(subprocess.TimeoutExpired):
                process.wait(_SIGNAL_EVERY_S)

    def _signal(self, process: subprocess.Popen[bytes], signum: int) -> None:
        try:
            self.allocation.signal_step(process, signum)
        except (UserError, OSError) as error:
            say(f"signal {signum} could not be sent, and will be sent again: {error}")
