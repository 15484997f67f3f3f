"""Whether a claim on a results folder still stands. Standard library only."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

from rtdetr_slurm.contract import CLAIM_JSON
from rtdetr_slurm.errors import RequestError
from rtdetr_slurm.runs.claim import Claim
from rtdetr_slurm.runs.processes import is_alive
from rtdetr_slurm.runs.report import report_run
from rtdetr_slurm.runs.run import open_run
from rtdetr_slurm.runs.summary import RunReport


def why_in_use(folder: Path, held: Claim | None, report: Callable[[Path], RunReport]) -> str | None:
    """Why nobody else may write to a results folder; None when it is free.

    It is when its holder's record has an end, or its holder is gone. What cannot be told is
    never taken for an end.

    Args:
        held: the claim on the folder.
        report: reports on the run in a folder.
    """
    if held is None or held.ended:
        return None
    told = f"results_dir {folder} is in use by {held}"
    if held.run_dir is None:
        return _why_by_hand(folder, held, told)
    run_dir = Path(held.run_dir)
    if _is_gone(run_dir):
        return None
    otherwise = f"if it has ended, remove {folder / CLAIM_JSON}"
    try:
        [stage] = [one for one in report(run_dir).stages if one.name == held.stage]
    except (RequestError, ValueError) as error:
        return f"{told}. Choose another results_dir; {otherwise} ({error})"
    if stage.state.ended:
        return None
    detail = f": {stage.detail}" if stage.detail else ""
    job = f" as job {stage.job_id}" if stage.job_id else ""
    return (
        f"{told}, which is {stage.state.value}{job}{detail}. Choose another results_dir, or cancel "
        f"that run first (rtdetr-slurm cancel {run_dir}); {otherwise}"
    )


def report_of_record(run_dir: Path) -> RunReport:
    """What a run's own record tells, where the scheduler cannot be asked.

    Raises:
        RequestError: it cannot be read.
    """
    run = open_run(run_dir)
    return report_run(run, {}, run.events())


def _why_by_hand(folder: Path, held: Claim, told: str) -> str | None:
    alive = is_alive(str(held.pid), {"host": held.host, "process_start": held.process_start})
    if alive is False:
        return None
    if alive:
        return f"{told}. Choose another results_dir, or wait for its end"
    return (
        f"{told}, which cannot be looked for from here. Choose another results_dir; if it has "
        f"ended, remove {folder / CLAIM_JSON}"
    )


def _is_gone(run_dir: Path) -> bool:
    """Whether a run has been removed, and is not only out of sight (in a container, or another
    user's)."""
    try:
        os.lstat(run_dir)
    except FileNotFoundError:
        return run_dir.parent.is_dir()
    except OSError:
        pass
    return False
