"""The trainings of a search, each in a folder of its own below its run's results: RUN/trials/K.

Standard library only.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from rtdetr_slurm.contract import RESULTS_DIR, STATUS_JSON, Status
from rtdetr_slurm.errors import RequestError
from rtdetr_slurm.records import exists, names_in
from rtdetr_slurm.resolved_spec import value_at
from rtdetr_slurm.runs.run import Run
from rtdetr_slurm.runs.status import read_status

_REFERENCE = re.compile(r"(?P<run>.+)/trials/(?P<trial>[0-9]{1,9})/?")
_SEARCHES, _TRIALS, _TRAINING = "automl", "trials", "train"


def split_reference(reference: str) -> tuple[str, int | None]:
    """`RUN/trials/K` as the run and the number of its trial; of a run alone the trial is None."""
    match = _REFERENCE.fullmatch(reference)
    return (reference, None) if match is None else (match["run"], int(match["trial"]))


def trial_folder(run: Run, trial: int) -> Path:
    """The folder with the checkpoints of one trial of a run.

    Raises:
        RequestError: there is none, or in several searches; says which trials there are.
    """
    folders = _trials(run)
    found = [folder / str(trial) for folder in folders if str(trial) in names_in(folder)]
    if len(found) != 1:
        numbers = sorted({int(n) for f in folders for n in names_in(f) if n.isdecimal()})
        there = ", ".join(map(str, numbers)) or "none"
        what = "several trials" if found else "no trial"
        raise RequestError(f"run {run.id} has {what} {trial}; it has {there}")
    inside = found[0] / _TRAINING
    return inside if exists(inside) else found[0]


def trial_problem(run: Run, trial: int) -> str | None:
    """Why a trial cannot be continued (yet); None where it has succeeded.

    Raises:
        RequestError: there is no such trial.
    """
    lines = read_status(trial_folder(run, trial) / STATUS_JSON)
    state = lines[-1].get("status") if lines else None
    if state == Status.SUCCESS.value:
        return None
    return f"trial {trial} of {run.id} has not succeeded ({state or 'nothing is on record'})"


def _trials(run: Run) -> list[Path]:
    """The folders that trials of the run's searches are in."""
    results: Mapping[str, Any] = run.spec
    root = Path(value_at(results, "results_dir") or run.path / RESULTS_DIR) / _SEARCHES
    searches = [root, *(root / name for name in names_in(root) if (root / name).is_dir())]
    return [place / _TRIALS for place in searches if exists(place / _TRIALS)]
