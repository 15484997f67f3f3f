"""The trainings of a search, each in a folder of its own: RUN/trials/K. Standard library only."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

from rtdetr_slurm.contract import STATUS_JSON, Status
from rtdetr_slurm.errors import RequestError
from rtdetr_slurm.plan.model import Plan, Stage, StageTask
from rtdetr_slurm.plan.search import Search
from rtdetr_slurm.records import exists, names_in
from rtdetr_slurm.runs.checkpoints import list_checkpoints
from rtdetr_slurm.runs.events import Event
from rtdetr_slurm.runs.run import Run
from rtdetr_slurm.runs.state import restart_of
from rtdetr_slurm.runs.status import read_status

_REFERENCE = re.compile(r"(?P<run>.+)/trials/(?P<trial>[0-9]{1,9})/?")


def split_reference(reference: str) -> tuple[str, int | None]:
    """`RUN/trials/K` as the run and the number of its trial; of a run alone the trial is None."""
    match = _REFERENCE.fullmatch(reference)
    return (reference, None) if match is None else (match["run"], int(match["trial"]))


def searching_stage(run: Run) -> tuple[Stage, Search]:
    """The stage of a run that searches, and what it searches.

    Raises:
        RequestError: none does.
    """
    stage = run.plan.searching
    if stage is None or stage.search is None:
        raise RequestError(f"run {run.id} has searched nothing, and so has no trials")
    return stage, stage.search


def trial_folder(run: Run, trial: int) -> Path:
    """The folder with the checkpoints of one trial of a run.

    Raises:
        RequestError: there is none; says which trials there are.
    """
    stage, search = searching_stage(run)
    folder = StageTask(stage, trial=trial).results_dir
    if not exists(folder):
        numbers = sorted(int(name) for name in names_in(search.trials_folder) if name.isdecimal())
        there = ", ".join(map(str, numbers)) or "none"
        raise RequestError(f"run {run.id} has no trial {trial}; it has {there}")
    return folder


def trial_problem(run: Run, trial: int) -> str | None:
    """Why a trial cannot be continued (yet); None where it has succeeded.

    Raises:
        RequestError: there is no such trial.
    """
    folder = trial_folder(run, trial)
    lines = read_status(folder / STATUS_JSON)
    state = lines[-1].get("status") if lines else None
    if state == Status.SUCCESS.value and list_checkpoints(folder):
        return None
    if state == Status.SUCCESS.value:
        return f"the checkpoints of trial {trial} of {run.id} were not kept (automl.retention)"
    return f"trial {trial} of {run.id} has not succeeded ({state or 'nothing is on record'})"


def trial_at_work(events: Sequence[Event], worker: StageTask) -> StageTask | None:
    """The trial that a task of a search trains; None where it trains none.

    Args:
        events: of the run.
    """
    begun: dict[tuple[int, int], StageTask] = {}
    for event in events:
        if event.get("search") != worker.stage.name or "trial" not in event:
            continue
        start = event["trial"], restart_of(event)
        if event["event"] == "started" and event.get("worker") == worker.index:
            begun[start] = StageTask(worker.stage, worker.index, event["trial"])
        elif event["event"] in ("requeued", "finished"):
            begun.pop(start, None)
    return [*begun.values()][-1] if begun else None


def folder_of(plan: Plan, event: Event) -> Path:
    """The results folder that the checkpoints of an event are in."""
    stage = plan.stage(event.get("search") or event["stage"])
    if stage.best_of is not None:
        stage = plan.stage(stage.best_of)
    trial = None if stage.search is None else event.get("trial")
    return StageTask(stage, event.get("task"), trial).results_dir
