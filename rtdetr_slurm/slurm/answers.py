"""What Slurm's answers come to, as values. Standard library only."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from rtdetr_slurm.slurm.states import ENDED, GONE


@dataclass(frozen=True)
class JobInfo:
    """What a scheduler says about one job, or one array task, now.

    Attributes:
        state: the first word of Slurm's state (`RUNNING`, `CANCELLED`, ...).
        reason: why it is pending or ended, empty when Slurm gives none.
        work_dir: the folder it runs in, where sacct was asked.
        ended: when it has ended, as scontrol and sacct say it: local time, `2026-01-02T03:04:05`.
        source: who said it: `squeue`, `sacct`, `scontrol`, `local`, or `nobody`.
    """

    job_id: str
    state: str
    reason: str = ""
    exit_code: int | None = None
    signal: int | None = None
    expected_start: str | None = None
    nodes: str = ""
    comment: str = ""
    work_dir: str = ""
    source: str = "squeue"
    ended: str | None = None

    @property
    def gone(self) -> bool:
        """Whether the scheduler was asked and does not know the job."""
        return self.state == GONE

    @property
    def over(self) -> bool:
        """Whether there is nothing left of it to end."""
        return self.gone or self.state in ENDED


@dataclass(frozen=True)
class Listing:
    """The jobs that squeue lists.

    Attributes:
        jobs: by job id.
        unreadable: the first line that is no job's, or is cut off; None where there is none, and
            only then a job that is not listed is not there.
    """

    jobs: Mapping[str, JobInfo]
    unreadable: str | None = None


@dataclass(frozen=True)
class Queued:
    """A job that sbatch has queued.

    Attributes:
        cluster: its name where Slurm has several; job ids are only good together with it.
    """

    job_id: str
    cluster: str | None = None


@dataclass(frozen=True)
class OwnFacts:
    """What tells a running job why it is asked to end.

    Attributes:
        running: whether it still runs as far as slurmctld is concerned.
        restarts: how often it was put back into the queue, also by Slurm itself, also just now.
        preempted: whether its grace time has begun.
        seconds_left: until the time limit; None where there is none.
        partition: that it runs in.
        excluded: the nodes that it must not get, in Slurm's short form; empty for none.
    """

    running: bool
    restarts: int
    preempted: bool
    seconds_left: float | None
    partition: str = ""
    excluded: str = ""


@dataclass(frozen=True)
class AsKept:
    """What of a job's options a site's own rules may have changed.

    Attributes:
        requeue: whether it may go back to the queue; None where Slurm does not say.
    """

    requeue: bool | None
    comment: str
