"""The place that a stage runs in: what differs between Slurm and this machine alone."""

from __future__ import annotations

import subprocess
from abc import ABC, abstractmethod
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from enum import Enum

from rtdetr_slurm.actions import get_action
from rtdetr_slurm.contract import FailureClass
from rtdetr_slurm.plan.model import Resources, Stage, StageTask

KILL_WAIT_S = 30
"""Slurm's default, for where it cannot be asked."""


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


class Standing(Enum):
    """Where a job stands, for who may take over what it holds."""

    WAITS = "waits"
    RUNS = "runs"
    ENDED = "ended"


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
    def standing(self, job_ids: Collection[str], /) -> dict[str, Standing]:
        """Where other jobs of the run stand; those of which nobody can tell are left out."""

    @abstractmethod
    def dismiss_waiting(self) -> None:
        """Take the tasks of this job's array out of the queue that wait there; raises SiteError."""

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


def topology_of(stage: Stage) -> str:
    """The spec section that a stage's nodes and GPUs come from, for messages."""
    return get_action(stage.action).gpu_section
