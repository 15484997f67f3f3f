"""The place that a stage runs in: a Slurm allocation."""

from __future__ import annotations

import subprocess
import time
from collections.abc import Collection, Mapping, Sequence

from rtdetr_slurm.contract import BATCH_SCRIPT, FailureClass
from rtdetr_slurm.errors import SiteError
from rtdetr_slurm.launch.allocation import (
    KILL_WAIT_S,
    Allocation,
    Exclusion,
    Standing,
    StopReason,
    topology_of,
)
from rtdetr_slurm.launch.log import say
from rtdetr_slurm.launch.rendezvous import resolve
from rtdetr_slurm.launch.suspects import left_out
from rtdetr_slurm.plan.model import Resources, Stage, StageTask
from rtdetr_slurm.runs.logs import LogReader
from rtdetr_slurm.runs.run import Run
from rtdetr_slurm.slurm.answers import JobInfo, OwnFacts
from rtdetr_slurm.slurm.commands import Slurm
from rtdetr_slurm.slurm.environment import job_environment
from rtdetr_slurm.slurm.job_ids import array_of, array_task, own_job_id
from rtdetr_slurm.slurm.parse import parse_notice
from rtdetr_slurm.slurm.states import ENDED, PENDING

EARLIEST_WARNING_S = 90
"""Slurm may send the warning signal a minute early; the rest is the clocks' and ours."""
_NOTICE_WAIT_S = 3.0
_REQUEUE_TRIES, _REQUEUE_EVERY_S = 4, 5.0
"""A controller that is busy, or changes places with its backup, is no end of a run."""
_EXCLUDE_TRIES, _EXCLUDE_EVERY_S = 5, 1.0


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

    def standing(self, job_ids: Collection[str], /) -> dict[str, Standing]:
        if not job_ids:
            return {}
        try:
            listing = self._slurm.squeue()
        except SiteError as error:
            say(f"whether other jobs still run is not known: {error}")
            return {}
        found = {i: standing_of(listing.jobs.get(i)) for i in job_ids}
        # What cannot be read may be the job that is not there.
        doubt = listing.unreadable is not None
        return {i: one for i, one in found.items() if i in listing.jobs or not doubt}

    def dismiss_waiting(self) -> None:
        self._slurm.scancel_waiting(array_of(self.job_id))

    def kill_wait_s(self) -> int:
        known = self._slurm.kill_wait()
        return KILL_WAIT_S if known is None else known

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


def srun_prefix(resources: Resources) -> list[str]:
    """What starts a command once on every node of a Slurm allocation."""
    argv = ["srun", f"--nodes={resources.nodes}", f"--ntasks={resources.nodes}"]
    argv += ["--ntasks-per-node=1", "--export=ALL", "--kill-on-bad-exit=1"]
    argv += ["--mpi=none"]  # the ranks meet through torchrun; no MPI plugin is to interfere
    # 22.05 does not hand sbatch's --cpus-per-task on to srun; others refuse two sources of it.
    if resources.cpus_per_task is not None:
        argv += [f"--cpus-per-task={resources.cpus_per_task}"]
    return argv


def standing_of(job: JobInfo | None) -> Standing:
    """Where a job stands, by what squeue lists; one that it does not is over."""
    if job is None or job.state in ENDED:
        return Standing.ENDED
    return Standing.WAITS if job.state in PENDING else Standing.RUNS


def judge_warning(facts: OwnFacts, lead_s: int) -> StopReason:
    """A signal to a job that Slurm still lets run: what comes of it is up to the job."""
    left = facts.seconds_left
    near = not facts.preempted and left is not None and left <= lead_s + EARLIEST_WARNING_S
    return StopReason(FailureClass.TIMEOUT if near else FailureClass.PREEMPTED)
