"""Starting the chain runner, detached from the terminal and from this process."""

from __future__ import annotations

import subprocess
import sys

from rtdetr_slurm.contract import JOBS_DIR
from rtdetr_slurm.errors import SiteError
from rtdetr_slurm.runs.run import Run

_RUNNER = (sys.executable, "-m", "rtdetr_slurm.local.runner")


def start_runner(run: Run, stage: str, first: int) -> str:
    """Start the stages of a run on this machine; returns the process id of its runner.

    Args:
        stage, first: the first one that it is to run, and the number of that start.

    Raises:
        SiteError: it could not be started.
    """
    log = run.path / JOBS_DIR / "runner.log"
    try:
        with log.open("ab") as output:
            process = subprocess.Popen(
                [*_RUNNER, str(run.path), stage, str(first)],
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                # `-m` looks for modules here first: not where a user may have a random.py.
                cwd=run.path,
                start_new_session=True,
            )
    except OSError as error:
        raise SiteError(f"the run could not be started on this machine: {error}") from error
    return str(process.pid)
