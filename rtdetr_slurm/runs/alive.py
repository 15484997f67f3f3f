"""The sign of life of a task's launch: a file in the task's folder that it touches while its step
runs. What an engine writes, and whether it writes anything, is another matter."""

from __future__ import annotations

from datetime import datetime, timezone
from pathlib import Path

from rtdetr_slurm.files import PRIVATE_FILE
from rtdetr_slurm.plan.model import StageTask
from rtdetr_slurm.runs.run import Run

_ALIVE = "alive"


def say_alive(run: Run, task: StageTask) -> None:
    """Raises OSError when it cannot be said."""
    _sign(run, task).touch(PRIVATE_FILE)


def last_alive(run: Run, task: StageTask) -> datetime | None:
    """When the latest start of a task whose step began last said so; None where none ever did."""
    try:
        modified = _sign(run, task).stat().st_mtime
    except OSError:
        return None
    return datetime.fromtimestamp(modified, timezone.utc)


def _sign(run: Run, task: StageTask) -> Path:
    return run.job_dir(task.name) / _ALIVE
