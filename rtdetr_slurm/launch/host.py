"""What differs for the controller between a Slurm allocation and this machine alone."""

from __future__ import annotations

import os
import re
import signal
import socket
import subprocess
import sys
import time
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence

from rtdetr_slurm.contract import Env
from rtdetr_slurm.errors import SiteError
from rtdetr_slurm.launch.outcome import Interruption
from rtdetr_slurm.launch.topology import MASTER_HOST, master_port, resolve
from rtdetr_slurm.plan.model import Stage
from rtdetr_slurm.runs.logs import LogReader
from rtdetr_slurm.runs.run import Run
from rtdetr_slurm.runs.state import ACTIVE_STATES, PENDING_STATES

_NODE_MODULE = "rtdetr_slurm.launch.node"
_COMMAND_TIMEOUT_S = 60
_NOTICE_WAIT_S = 3.0
_EARLIEST_WARNING_S = 90
"""Slurm may send the warning signal a minute early; the rest is the clocks' and ours."""


class Host(ABC):
    """The place a controller runs in."""

    job_id: str
    restart: int = 0

    @abstractmethod
    def command(self, run: Run, stage: Stage) -> list[str]:
        """What starts the node wrapper on every node."""

    @abstractmethod
    def master(self) -> str:
        """Address of node 0."""

    @abstractmethod
    def check(self, stage: Stage) -> None:
        """Raise SiteError when the allocation is not what the plan asked for."""

    @abstractmethod
    def signal_step(self, process: subprocess.Popen[bytes], signum: int, /) -> None:
        """Send a signal to the training, on all nodes."""

    @abstractmethod
    def why_stopped(self, signum: int, lead_s: int, /) -> Interruption:
        """What a stop signal means, given how long before the time limit one is due."""

    @abstractmethod
    def requeue(self) -> None:
        """Put this very job back into the queue; raises SiteError when that is refused."""

    def environment(self, environ: Mapping[str, str]) -> dict[str, str]:
        """The environment of the node wrappers."""
        env = dict(environ)
        env[Env.MASTER_ADDR] = self.master()
        env[Env.MASTER_PORT] = str(master_port(int(self.job_id), self.restart))
        env[MASTER_HOST] = socket.gethostname()
        env.pop(Env.RESUME, None)
        if self.restart > 0:
            env[Env.RESUME] = "1"
        return env


class SlurmHost(Host):
    """The batch step of a Slurm job, on node 0 of its allocation."""

    def __init__(self, run: Run, environ: Mapping[str, str]) -> None:
        self._env = environ
        self.job_id = environ["SLURM_JOB_ID"]
        self._log = LogReader(run.log_path(self.job_id), from_end=True)
        self.restart = int(environ.get("SLURM_RESTART_COUNT") or 0)

    def command(self, run: Run, stage: Stage) -> list[str]:
        resources = stage.resources
        argv = ["srun", f"--nodes={resources.nodes}", f"--ntasks={resources.nodes}"]
        argv += ["--ntasks-per-node=1", "--export=ALL", "--kill-on-bad-exit=1"]
        argv += ["--mpi=none"]  # the ranks meet through torchrun; no MPI plugin is to interfere
        # 22.05 does not hand sbatch's --cpus-per-task on to srun; others refuse two sources of it.
        if resources.cpus_per_task is not None:
            argv += [f"--cpus-per-task={resources.cpus_per_task}"]
        return [*argv, *_node_wrapper(run, stage)]

    def master(self) -> str:
        nodes = _output(["scontrol", "show", "hostnames", self._env["SLURM_JOB_NODELIST"]])
        return resolve(nodes.split()[0])

    def check(self, stage: Stage) -> None:
        nodes = self._env.get("SLURM_JOB_NUM_NODES")
        if nodes != str(stage.resources.nodes):
            raise SiteError(
                f"the allocation has {nodes} nodes, the spec's {stage.action}.num_nodes is "
                f"{stage.resources.nodes}"
            )

    def signal_step(self, _process: subprocess.Popen[bytes], signum: int, /) -> None:
        # Without --batch, scancel signals the job's steps and leaves this batch step alone.
        name = signal.Signals(signum).name.removeprefix("SIG")
        _output(["scancel", f"--signal={name}", self.job_id])

    def why_stopped(self, _signum: int, lead_s: int, /) -> Interruption:
        try:
            state, left = self._queue_entry()
        except SiteError as error:
            say(f"the job's state is not known, so this counts as preemption: {error}")
            return Interruption.PREEMPTED
        if state in ACTIVE_STATES - {"COMPLETING"}:
            # A warning: Slurm leaves it to the job what comes of it.
            near = left is not None and left <= lead_s + _EARLIEST_WARNING_S
            return Interruption.TIMEOUT if near else Interruption.PREEMPTED
        # Slurm is ending the job; its own line in the log is the only witness of the reason.
        return self._notice() or Interruption.CANCELLED

    def _notice(self) -> Interruption | None:
        deadline = time.monotonic() + _NOTICE_WAIT_S
        while time.monotonic() < deadline:
            if notice := parse_notice(self._log.new_lines(), self.job_id):
                return notice
            time.sleep(0.2)
        return None

    def requeue(self) -> None:
        if self._queue_entry()[0] not in PENDING_STATES:
            _output(["scontrol", "requeue", self.job_id])

    def _queue_entry(self) -> tuple[str, float | None]:
        """State and seconds left."""
        argv = ["squeue", "--noheader", "--states=all", f"--jobs={self.job_id}", "--format=%T|%L"]
        state, _, left = _output(argv).strip().partition("|")
        return state, parse_time_left(left)


class LocalHost(Host):
    """This machine, under submitit's local executor."""

    def __init__(self, environ: Mapping[str, str]) -> None:
        self.job_id = environ["SUBMITIT_LOCAL_JOB_ID"]

    def command(self, run: Run, stage: Stage) -> list[str]:
        return _node_wrapper(run, stage)

    def master(self) -> str:
        return "127.0.0.1"

    def check(self, stage: Stage) -> None:
        pass  # the plan has made sure of one node; there is no allocation to compare with

    def signal_step(self, process: subprocess.Popen[bytes], signum: int, /) -> None:
        # KILL cannot be handed on by the process it ends, so it goes to the whole group.
        if signum == signal.SIGKILL:
            os.killpg(process.pid, signum)
        else:
            process.send_signal(signum)

    def why_stopped(self, signum: int, _lead_s: int, /) -> Interruption:
        # submitit's local executor warns with USR2; TERM comes from whoever ends the job.
        return Interruption.TIMEOUT if signum == signal.SIGUSR2 else Interruption.CANCELLED

    def requeue(self) -> None:
        raise SiteError("this machine has no queue")


def make_host(run: Run, stage: Stage, environ: Mapping[str, str]) -> Host:
    return LocalHost(environ) if stage.launch.scheduler == "local" else SlurmHost(run, environ)


def say(message: str) -> None:
    """One line in the job's log."""
    print(f"rtdetr-slurm: {message}", file=sys.stderr, flush=True)


def parse_time_left(text: str) -> float | None:
    """Seconds of squeue's `[[days-]hours:]minutes:seconds`; None for UNLIMITED and the like."""
    match = re.fullmatch(r"(?:(?:(\d+)-)?(\d+):)?(\d+):(\d+)", text)
    if match is None:
        return None
    days, hours, minutes, seconds = (int(part or 0) for part in match.groups())
    return float(((days * 24 + hours) * 60 + minutes) * 60 + seconds)


def parse_notice(log: Sequence[str], job_id: str) -> Interruption | None:
    """Why Slurm is ending a job, from slurmstepd's line in the job's log.

    `*** JOB 8 ON node1 CANCELLED AT 2026-… DUE TO PREEMPTION ***`; a line that gives no reason
    means that somebody cancelled the job. None when there is no such line.
    """
    pattern = rf"\*\*\* JOB {job_id} ON \S+ CANCELLED AT \S+(?: DUE TO ([A-Z ]+))? \*\*\*"
    reasons = {"TIME LIMIT": Interruption.TIMEOUT, None: Interruption.CANCELLED}
    for line in reversed(log):
        if match := re.search(pattern, line):
            # PREEMPTION, JOB REQUEUE, NODE FAILURE: none of them is the user's wish.
            return reasons.get(match[1], Interruption.PREEMPTED)
    return None


def _node_wrapper(run: Run, stage: Stage) -> list[str]:
    return [sys.executable, "-m", _NODE_MODULE, str(run.path), stage.name]


def _output(argv: list[str]) -> str:
    try:
        done = subprocess.run(
            argv,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=_COMMAND_TIMEOUT_S,
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        raise SiteError(f"{argv[0]}: {error}") from error
    if done.returncode != 0:
        raise SiteError(f"{' '.join(argv)}: {done.stderr.strip() or f'exit {done.returncode}'}")
    return done.stdout
