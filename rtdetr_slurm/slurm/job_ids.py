"""Job ids as Slurm writes them: `123`, `123_4`, and `123_[4-9%2]` for tasks still pending.

An array task also has a number of its own, and for one task it is the array's: that number says
nothing about which task is meant. Tasks are therefore addressed as `<array>_<task>` everywhere.
Standard library only.
"""

from __future__ import annotations

import re
from collections.abc import Mapping

_ID = re.compile(r"[0-9]{1,10}(_[0-9]{1,10})?")
_PENDING = re.compile(r"(\d+)_\[([\d,:\-]+)(?:%\d+)?\]")
_RANGE = re.compile(r"(\d+)(?:-(\d+))?(?::(\d+))?")


def own_job_id(environ: Mapping[str, str]) -> str:
    """The id that addresses this job and nothing else, from the environment Slurm gives it.

    Raises:
        KeyError: not inside a Slurm job.
    """
    task = environ.get("SLURM_ARRAY_TASK_ID")
    if task is None:
        return environ["SLURM_JOB_ID"]
    return f"{environ['SLURM_ARRAY_JOB_ID']}_{task}"


def array_task(environ: Mapping[str, str]) -> int | None:
    """The index of this array task; None outside an array."""
    task = environ.get("SLURM_ARRAY_TASK_ID")
    return None if task is None else int(task)


def is_job_id(text: str) -> bool:
    """Whether `text` addresses one job or one array task."""
    return _ID.fullmatch(text) is not None


def expand(text: str) -> list[str]:
    """Every job that an id in squeue's or sacct's output stands for; empty when it is none."""
    if is_job_id(text):
        return [text]
    match = _PENDING.fullmatch(text)
    return [] if match is None else [f"{match[1]}_{task}" for task in _indices(match[2])]


def array_of(job_id: str) -> str:
    """The array of a task, or the job itself."""
    return job_id.partition("_")[0]


def task_of(job_id: str) -> int | None:
    """The index of an array's task; None of a job that is no array's."""
    task = job_id.partition("_")[2]
    return int(task) if task else None


def numbers_of(job_id: str) -> tuple[int, int]:
    """Job number and array index (0 where there is none), such as a port is made of."""
    job, _, task = job_id.partition("_")
    return int(job), int(task or 0)


def _indices(text: str) -> list[int]:
    """`4-9,12,20-30:2` as numbers."""
    found: list[int] = []
    for part in text.split(","):
        if match := _RANGE.fullmatch(part):
            first, last, step = int(match[1]), int(match[2] or match[1]), int(match[3] or 1)
            found.extend(range(first, last + 1, max(step, 1)))
    return found
