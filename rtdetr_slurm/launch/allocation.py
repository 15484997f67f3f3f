"""What differs for a stage between a Slurm allocation and this machine alone."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from rtdetr_slurm.actions import get_action
from rtdetr_slurm.contract import BATCH_SCRIPT, Env, FailureClass
from rtdetr_slurm.errors import SiteError
from rtdetr_slurm.launch.rendezvous import resolve
from rtdetr_slurm.launch.suspects import left_out
from rtdetr_slurm.plan.model import Resources, Stage, StageTask
from rtdetr_slurm.runs.logs import LogReader
from rtdetr_slurm.runs.run import Run
from rtdetr_slurm.slurm.answers import OwnFacts
from rtdetr_slurm.slurm.commands import Slurm
from rtdetr_slurm.slurm.environment import job_environment
from rtdetr_slurm.slurm.job_ids import array_task, own_job_id
from rtdetr_slurm.slurm.parse import parse_notice

EARLIEST_WARNING_S = 90
"""Slurm may send the warning signal a minute early; the rest is the clocks' and ours."""
_NOTICE_WAIT_S = 3.0
_KILL_WAIT_S = 30
"""Slurm's default, for where it cannot be asked."""
_REQUEUE_TRIES, _REQUEUE_EVERY_S = 4, 5.0
"""A controller that is busy, or changes places with its backup, is no end of a run."""
_EXCLUDE_TRIES, _EXCLUDE_EVERY_S = 5, 1.0


@dataclass(frozen=True)
class StopReason:
    """Why a stage is asked to end.

    Attributes:
        why: TIMEOUT, PREEMPTED or CANCELLED.
        by_scheduler: the scheduler is ending the job itself and has signalled every process
            already; else it is for the stage to pass the request on.
    """

    why: FailureClass
    by_scheduler: bool = False


@dataclass(frozen=True)
class Exclusion:
    """The nodes that a job leaves out when it comes back, and what there is to say about it."""

    nodes: tuple[str, ...] = ()
    note: str = ""


class Allocation(ABC):
    """The place that a stage runs in.

    Attributes:
        task: the stage, or the task of its array, that runs here.
        job_id: addresses this job, or array task, and nothing else.
        first: number of the first start of this job.
        restart: number of this start.
    """

    task: StageTask
    job_id: str
    first: int = 0
    restart: int = 0

    @abstractmethod
    def prefix(self, resources: Resources) -> list[str]:
        """What starts a command once on every node."""

    @abstractmethod
    def master(self) -> str:
        """Address of node 0."""

    @abstractmethod
    def check(self) -> None:
        """Raise SiteError when the allocation is not what the plan asked for."""

    @abstractmethod
    def signal_step(self, process: subprocess.Popen[bytes], signum: int, /) -> None:
        """Send a signal to the running step, on all nodes."""

    @abstractmethod
    def why_stopped(self, signum: int, lead_s: int, /) -> StopReason:
        """What a stop signal means, given how long before the time limit one is due."""

    @abstractmethod
    def quietly_preempted(self) -> bool:
        """Whether the scheduler has told the training to end, and not the stage run."""

    @abstractmethod
    def mail_first_start_only(self) -> None:
        """See that no mail is sent about further starts of this job, whether or not an earlier one
        has come to do so; raises SiteError."""

    @abstractmethod
    def nodes(self) -> tuple[str, ...]:
        """Names of the nodes, in order; none where the scheduler does not say."""

    @abstractmethod
    def kill_wait_s(self) -> int:
        """What the scheduler leaves between TERM and KILL when it ends a job itself."""

    @abstractmethod
    def exclusion(self, bad: Sequence[str], earlier: Sequence[str], /) -> Exclusion:
        """Which nodes the job can do without.

        Args:
            bad: nodes that were at fault, the latest first.
            earlier: those of them that this start was to leave out.
        """

    @abstractmethod
    def requeue(self, exclude: Sequence[str] = (), /) -> None:
        """See that this very job is in the queue again, and leaves out `exclude`.

        Raises:
            SiteError: it is not allowed back. That a node cannot be left out is only said.
        """


class SlurmAllocation(Allocation):
    """The batch step of a Slurm job, on node 0 of its allocation."""

    def __init__(self, run: Run, stage: Stage, environ: Mapping[str, str], first: int = 0) -> None:
        self._environ = environ
        self._slurm = Slurm(job_environment(environ))
        self.task = StageTask(stage, array_task(environ))
        self.job_id = own_job_id(environ)
        self.first = first
        self.restart = first + int(environ.get("SLURM_RESTART_COUNT") or 0)
        self._script = run.job_dir(stage.name) / BATCH_SCRIPT
        self._log = LogReader(run.log_path(stage.name, self.job_id), from_end=True)

    def prefix(self, resources: Resources) -> list[str]:
        return srun_prefix(resources)

    def master(self) -> str:
        return resolve(self._slurm.hostnames(self._environ["SLURM_JOB_NODELIST"])[0])

    def check(self) -> None:
        resources, section = self.task.stage.resources, topology_of(self.task.stage)
        nodes = self._environ.get("SLURM_JOB_NUM_NODES")
        if nodes != str(resources.nodes):
            raise SiteError(
                f"the allocation has {nodes} nodes, the spec's {section}.num_nodes is "
                f"{resources.nodes}"
            )
        # Every node counts its own GPUs again, but srun itself would refuse in words of its own.
        gpus, wanted = self._environ.get("SLURM_GPUS_ON_NODE"), resources.gpus_per_node
        if wanted and resources.gpu_request != "none" and gpus not in (None, str(wanted)):
            raise SiteError(
                f"the allocation has {gpus} GPUs on the first node, the spec's "
                f"{section}.num_gpus is {wanted}"
            )

    def signal_step(self, _process: subprocess.Popen[bytes], signum: int, /) -> None:
        self._slurm.signal_steps(self.job_id, signum)

    def why_stopped(self, _signum: int, lead_s: int, /) -> StopReason:
        try:
            facts = self._slurm.own_facts(self.job_id)
        except SiteError as error:
            say(f"Slurm does not say why, so this counts as preemption: {error}")
            return StopReason(FailureClass.PREEMPTED)
        if facts.running:
            return judge_warning(facts, lead_s)
        # Slurm is ending the job; its own line in the log is the only witness of the reason.
        return StopReason(self._notice() or FailureClass.CANCELLED, by_scheduler=True)

    def quietly_preempted(self) -> bool:
        try:
            return self._slurm.own_facts(self.job_id).preempted
        except SiteError as error:
            say(f"Slurm does not say whether the job was preempted: {error}")
            return False

    def mail_first_start_only(self) -> None:
        mail = self.task.stage.resources.mail
        if mail is not None and mail.of_further_starts != mail.types:
            self._slurm.set_mail_types(self.job_id, mail.of_further_starts)

    def nodes(self) -> tuple[str, ...]:
        try:
            return tuple(self._slurm.hostnames(self._environ["SLURM_JOB_NODELIST"]))
        except SiteError as error:
            say(f"Slurm does not say which nodes these are: {error}")
            return ()

    def kill_wait_s(self) -> int:
        known = self._slurm.kill_wait()
        return _KILL_WAIT_S if known is None else known

    def exclusion(self, bad: Sequence[str], earlier: Sequence[str], /) -> Exclusion:
        if not bad:
            return Exclusion(note="no node is known to be at fault, so none is left out")
        try:
            facts = self._slurm.own_facts(self.job_id)
            total = self._slurm.partition_nodes(facts.partition)
            nodes = left_out(bad, total, self.task.stage.resources.nodes)
            what = f"{', '.join(bad[len(nodes) :])} cannot be left out"
            few = (
                f"{what}: partition {facts.partition} has {total} nodes"
                if bad[len(nodes) :]
                else ""
            )
            if not nodes:
                return Exclusion(note=few)
            # What an administrator has excluded stays.
            listed = self._slurm.hostnames(facts.excluded) if facts.excluded else []
            nodes += tuple(node for node in listed if node not in (*earlier, *nodes))
            if refusal := self._slurm.refusal_without(self._script, nodes):
                return Exclusion(note=f"{', '.join(nodes)} cannot be left out: {refusal}")
        except SiteError as error:
            return Exclusion(note=f"no node is left out: {error}")
        return Exclusion(nodes, few)

    def requeue(self, exclude: Sequence[str] = (), /) -> None:
        # In this order: Slurm lets only a waiting job change its nodes, and whenever this process
        # is killed, the job is not held.
        self._put_back()
        for tries in range(_EXCLUDE_TRIES if exclude else 0):
            try:
                return self._slurm.exclude(self.job_id, exclude)
            except SiteError as error:
                if tries + 1 == _EXCLUDE_TRIES:
                    say(f"{', '.join(exclude)} could not be left out: {error}")
            time.sleep(_EXCLUDE_EVERY_S)

    def _put_back(self) -> None:
        for tries in range(_REQUEUE_TRIES):
            try:
                # Slurm itself may have done so, and a try without an answer, too.
                if self._slurm.own_facts(self.job_id).restarts == self.restart - self.first:
                    self._slurm.requeue(self.job_id)
                return
            except SiteError as error:
                if tries + 1 == _REQUEUE_TRIES:
                    raise
                say(f"the job is not back in the queue, and this is tried again: {error}")
            time.sleep(_REQUEUE_EVERY_S)

    def _notice(self) -> FailureClass | None:
        deadline = time.monotonic() + _NOTICE_WAIT_S
        while time.monotonic() < deadline:
            if notice := parse_notice(self._log.new_lines(), self._environ["SLURM_JOB_ID"]):
                return notice
            time.sleep(0.2)
        return None


class LocalAllocation(Allocation):
    """This machine, under the chain runner of the local site."""

    def __init__(self, stage: Stage, environ: Mapping[str, str], first: int = 0) -> None:
        self.first = self.restart = first
        index = environ.get(Env.LOCAL_TASK)
        self.task = StageTask(stage, None if index is None else int(index))
        self.job_id = self.task.job_id(environ[Env.LOCAL_JOB_ID])

    def prefix(self, resources: Resources) -> list[str]:  # noqa: ARG002
        return []

    def master(self) -> str:
        return "127.0.0.1"

    def check(self) -> None:
        pass  # the plan has made sure of one node; there is no allocation to compare with

    def signal_step(self, process: subprocess.Popen[bytes], signum: int, /) -> None:
        # KILL cannot be handed on by the process it ends, so it goes to the whole group.
        if signum == signal.SIGKILL:
            os.killpg(process.pid, signum)
        else:
            process.send_signal(signum)

    def why_stopped(self, signum: int, _lead_s: int, /) -> StopReason:
        # The chain runner warns with USR2; TERM comes from whoever ends the job.
        timeout = signum == signal.SIGUSR2
        return StopReason(FailureClass.TIMEOUT if timeout else FailureClass.CANCELLED)

    def quietly_preempted(self) -> bool:
        return False

    def mail_first_start_only(self) -> None:
        pass  # this machine sends no mail

    def nodes(self) -> tuple[str, ...]:
        return (os.uname().nodename,)

    def kill_wait_s(self) -> int:
        return _KILL_WAIT_S

    def exclusion(self, _bad: Sequence[str], _earlier: Sequence[str], /) -> Exclusion:
        return Exclusion()

    def requeue(self, _exclude: Sequence[str] = (), /) -> None:
        raise SiteError("this machine has no queue")


def srun_prefix(resources: Resources) -> list[str]:
    """What starts a command once on every node of a Slurm allocation."""
    argv = ["srun", f"--nodes={resources.nodes}", f"--ntasks={resources.nodes}"]
    argv += ["--ntasks-per-node=1", "--export=ALL", "--kill-on-bad-exit=1"]
    argv += ["--mpi=none"]  # the ranks meet through torchrun; no MPI plugin is to interfere
    # 22.05 does not hand sbatch's --cpus-per-task on to srun; others refuse two sources of it.
    if resources.cpus_per_task is not None:
        argv += [f"--cpus-per-task={resources.cpus_per_task}"]
    return argv


def make_allocation(
    run: Run, stage: Stage, environ: Mapping[str, str], first: int = 0
) -> Allocation:
    """The allocation that this process runs in.

    Args:
        first: number of the first start of this job.

    Raises:
        SiteError: it is not inside the kind of job that the plan says.
    """
    try:
        if stage.launch.scheduler == "local":
            return LocalAllocation(stage, environ, first)
        return SlurmAllocation(run, stage, environ, first)
    except KeyError as error:
        raise SiteError(
            f"not inside a job: {error.args[0]} is not set; this is started by the batch script "
            "of a run, not by hand"
        ) from None


def judge_warning(facts: OwnFacts, lead_s: int) -> StopReason:
    """A signal to a job that Slurm still lets run: what comes of it is up to the job."""
    left = facts.seconds_left
    near = not facts.preempted and left is not None and left <= lead_s + EARLIEST_WARNING_S
    return StopReason(FailureClass.TIMEOUT if near else FailureClass.PREEMPTED)


def topology_of(stage: Stage) -> str:
    """The spec section that a stage's nodes and GPUs come from, for messages."""
    return get_action(stage.action).gpu_section


def say(message: str) -> None:
    """One line in the job's log."""
    print(f"rtdetr-slurm: {message}", file=sys.stderr, flush=True)
