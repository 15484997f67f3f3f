"""Which job is meant. Its token, in the comment, is the proof; its number is none: numbers start
anew when a cluster loses its state or is set up again. Pure; standard library only.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from rtdetr_slurm.slurm.answers import JobInfo
from rtdetr_slurm.slurm.job_ids import array_of, numbers_of, task_of
from rtdetr_slurm.slurm.states import ENDED, GONE


@dataclass(frozen=True)
class Sought:
    """A job, or one task of an array, as it was sent.

    Attributes:
        token: its comment.
        work_dir: the folder it runs in, which belongs to one run.
        since: ISO date and time, before it was sent.
        job_id: as recorded; None while no answer of sbatch is.
        task: index in its array.
        not_ids: job ids in the same folder that are known to be others.
    """

    token: str
    work_dir: str
    since: str
    job_id: str | None = None
    task: int | None = None
    not_ids: frozenset[str] = frozenset()


def in_queue(one: Sought, jobs: Iterable[JobInfo]) -> JobInfo | None:
    """The job among those that slurmctld has; None when it has none with this token.

    Of several, as after the script was sent once more by hand, the one on record; else one that
    has not ended, and the latest of those.
    """
    own = [job for job in jobs if job.comment == one.token and task_of(job.job_id) == one.task]
    return max(own, key=lambda job: _likeness(job, one), default=None)


def in_accounting(one: Sought, jobs: Iterable[JobInfo]) -> JobInfo | None:
    """The job among sacct's, for one that slurmctld does not have.

    Accounting keeps comments only where AccountingStoreFlags says so; without one, the folder of
    the run stands for it. What it still lists as waiting or running, slurmctld has lost.
    """
    own = [job for job in jobs if job.state in ENDED and _is(one, job)]
    return max(own, key=lambda job: _likeness(job, one), default=None)


def gone(one: Sought) -> JobInfo:
    """What there is to say of a job that nobody knows."""
    return JobInfo(one.job_id or "", GONE, source="nobody")


def _is(one: Sought, job: JobInfo) -> bool:
    if job.comment:
        return job.comment == one.token and task_of(job.job_id) == one.task
    if job.work_dir != one.work_dir or task_of(job.job_id) != one.task:
        return False
    if one.job_id is not None:
        return job.job_id == one.job_id
    return array_of(job.job_id) not in one.not_ids


def _likeness(job: JobInfo, one: Sought) -> tuple[bool, bool, tuple[int, int]]:
    return job.job_id == one.job_id, job.state not in ENDED, numbers_of(job.job_id)
