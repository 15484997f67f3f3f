"""What differs for the controller between a Slurm allocation and this machine alone."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
from abc import ABC, abstractmethod
from collections.abc import Mapping

from rtdetr_slurm.contract import Env
from rtdetr_slurm.errors import SiteError
from rtdetr_slurm.launch.outcome import Interruption, Stop
from rtdetr_slurm.launch.slurm_facts import JobFacts, judge_warning, parse_job_facts, parse_notice
from rtdetr_slurm.launch.topology import MASTER_HOST, master_port, resolve
from rtdetr_slurm.plan.model import Stage
from rtdetr_slurm.runs.logs import LogReader
from rtdetr_slurm.runs.run import Run

_NODE_MODULE = "rtdetr_slurm.launch.node"
_COMMAND_TIMEOUT_S = 60
_NOTICE_WAIT_S = 3.0


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
    def why_stopped(self, signum: int, lead_s: int, /) -> Stop:
        """What a stop signal means, given how long before the time limit one is due."""

    @abstractmethod
    def quietly_preempted(self) -> bool:
        """Whether the scheduler has told the training to end, and not the controller."""

    @abstractmethod
    def requeue(self) -> None:
        """See that this very job is in the queue again; raises SiteError when that is refused."""

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
        # Every node counts its own GPUs again, but srun itself would refuse in words of its own.
        gpus = self._env.get("SLURM_GPUS_ON_NODE")
        wanted = stage.resources.gpus_per_node
        if stage.resources.gpu_request != "none" and gpus not in (None, str(wanted)):
            raise SiteError(
                f"the allocation has {gpus} GPUs on the first node, the spec's "
                f"{stage.action}.num_gpus is {wanted}"
            )

    def signal_step(self, _process: subprocess.Popen[bytes], signum: int, /) -> None:
        # Without --batch, scancel signals the job's steps and leaves this batch step alone.
        name = signal.Signals(signum).name.removeprefix("SIG")
        _output(["scancel", f"--signal={name}", self.job_id])

    def why_stopped(self, _signum: int, lead_s: int, /) -> Stop:
        try:
            facts = self._facts()
        except SiteError as error:
            say(f"Slurm does not say why, so this counts as preemption: {error}")
            return Stop(Interruption.PREEMPTED, by_scheduler=False)
        if facts.active:
            return judge_warning(facts, lead_s)
        # Slurm is ending the job; its own line in the log is the only witness of the reason.
        return Stop(self._notice() or Interruption.CANCELLED, by_scheduler=True)

    def quietly_preempted(self) -> bool:
        try:
            return self._facts().preempted
        except SiteError as error:
            say(f"Slurm does not say whether the job was preempted: {error}")
            return False

    def requeue(self) -> None:
        if self._facts().restarts == self.restart:
            _output(["scontrol", "requeue", self.job_id])

    def _facts(self) -> JobFacts:
        return parse_job_facts(_output(["scontrol", "--oneliner", "show", "job", self.job_id]))

    def _notice(self) -> Interruption | None:
        deadline = time.monotonic() + _NOTICE_WAIT_S
        while time.monotonic() < deadline:
            if notice := parse_notice(self._log.new_lines(), self.job_id):
                return notice
            time.sleep(0.2)
        return None


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

    def why_stopped(self, signum: int, _lead_s: int, /) -> Stop:
        # submitit's local executor warns with USR2; TERM comes from whoever ends the job.
        timeout = signum == signal.SIGUSR2
        why = Interruption.TIMEOUT if timeout else Interruption.CANCELLED
        return Stop(why, by_scheduler=False)

    def quietly_preempted(self) -> bool:
        return False

    def requeue(self) -> None:
        raise SiteError("this machine has no queue")


def make_host(run: Run, stage: Stage, environ: Mapping[str, str]) -> Host:
    return LocalHost(environ) if stage.launch.scheduler == "local" else SlurmHost(run, environ)


def say(message: str) -> None:
    """One line in the job's log."""
    print(f"rtdetr-slurm: {message}", file=sys.stderr, flush=True)


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
