"""What commands print that may send jobs of a search."""

from __future__ import annotations

from collections.abc import Mapping

from rtdetr_slurm.cli import terminal
from rtdetr_slurm.runs.run import Run


def tell_sent(run: Run, jobs: Mapping[str, str]) -> None:
    """Say which jobs were sent, and print the run folder."""
    if jobs:
        ids = ", ".join(f"{name} {job_id}" for name, job_id in jobs.items())
        terminal.note(f"resumed {run.id} (job: {ids})")
    terminal.out(run.path)
