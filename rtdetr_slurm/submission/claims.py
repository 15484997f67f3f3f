"""The results folders that a submission wants: whether it can have them, and its claims on them."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rtdetr_slurm.actions import get_action
from rtdetr_slurm.errors import RequestError
from rtdetr_slurm.plan.model import Plan, Stage, StageTask
from rtdetr_slurm.runs.checkpoints import in_the_way, resume_candidates, resumed_checkpoint
from rtdetr_slurm.runs.claim import Claim, claim_id, give_back, new_claim, read_claim, take
from rtdetr_slurm.runs.holders import why_in_use
from rtdetr_slurm.runs.run import Run
from rtdetr_slurm.runs.summary import RunReport
from rtdetr_slurm.runs.tao import leftover
from rtdetr_slurm.submission.survey import survey_run


@dataclass(frozen=True)
class Taken:
    """A results folder that was claimed.

    Attributes:
        former: the claim that stood there, of a run that has ended.
        made: the folders that had to be made for it, the innermost first.
    """

    folder: Path
    id: str
    former: Claim | None
    made: Sequence[Path]


def check_results(plan: Plan, spec: Mapping[str, Any], run_dir: Path) -> None:
    """See that every stage can have its results folder; writes nothing.

    Args:
        spec: the frozen one.
        run_dir: the folder that the run will have; what is in it is its own.

    Raises:
        RequestError: a folder cannot be made or written to, another run uses it, or it holds the
            checkpoints of a training that the spec does not go on from.
    """
    for task in plan.tasks():
        if not task.results_dir.is_relative_to(run_dir):
            _check_writable(task)
            _free_claim(task, spec, complete=False)


def claim_results(run: Run, stage: Stage) -> list[Taken]:
    """Claim the results folder of every task of a stage, before anything is queued.

    Raises:
        RequestError: as `check_results`, which has looked some time ago; none is claimed.
        OSError: a claim cannot be written.
    """
    taken: list[Taken] = []
    try:
        for task in stage.tasks():
            taken.append(_make(task, claim_id(run.id, task.name)))
            _claim(run, task)
    except (RequestError, OSError):
        release_results(taken)
        raise
    return taken


def release_results(taken: Sequence[Taken]) -> None:
    """Leave folders as they were found, where no job has begun to use them.

    A claim that cannot be removed holds nobody up: the record of its run says that it is over.
    """
    for one in taken:
        with suppress(OSError, RequestError):
            give_back(one.folder, one.id, one.former)
        for path in one.made:
            with suppress(OSError):
                path.rmdir()


def _make(task: StageTask, claim: str) -> Taken:
    """Make a task's folder; what is there already is looked at when it is claimed."""
    folder = task.results_dir
    made = [path for path in (folder, *folder.parents) if not path.exists()]
    try:
        folder.mkdir(parents=True, exist_ok=True)
        return Taken(folder, claim, read_claim(folder), made)
    except OSError as error:
        raise _not_writable(task, error.strerror or str(error)) from error


def _claim(run: Run, task: StageTask) -> None:
    if (held := read_claim(task.results_dir)) and held.id == claim_id(run.id, task.name):
        return  # of an earlier submission of this run
    former = _free_claim(task, run.spec, complete=True)
    mine = new_claim(
        claim_id(run.id, task.name),
        continues=bool(resume_candidates(task.results_dir)),
        run_dir=str(run.path),
        stage=task.name,
    )
    take(task.results_dir, mine, former)


def _check_writable(task: StageTask) -> None:
    folder = task.results_dir
    there = next(path for path in (folder, *folder.parents) if os.path.lexists(path))
    if not there.is_dir():
        raise _not_writable(task, f"{there} is no folder")
    if not os.access(there, os.W_OK | os.X_OK):
        raise _not_writable(task, f"you may not write to {there}")


def _not_writable(task: StageTask, why: str) -> RequestError:
    return RequestError(
        f"{_field(task)}: {task.results_dir} cannot be written to: {why}; choose a folder that "
        "this machine and every node can write to"
    )


def _free_claim(task: StageTask, spec: Mapping[str, Any], *, complete: bool) -> Claim | None:
    """The claim on a task's results folder, which nobody stands by any more.

    Args:
        complete: record the end of its run, where its job could not.
    """
    folder, notes = task.results_dir, list[str]()

    def report(run_dir: Path) -> RunReport:
        found, told = survey_run(run_dir, complete=complete)
        notes.extend(told)
        return found

    try:
        held = read_claim(folder)
        problem = why_in_use(folder, held, report)
    except RequestError as error:
        raise RequestError(f"{_field(task)}: {error}") from None
    if problem is None and get_action(task.stage.action).trains:
        resumed = resumed_checkpoint(spec)
        problem = in_the_way(folder, resumed)
        if problem is None and task.stage.launch.engine == "tao" and resumed is None:
            problem = leftover(folder)
    if problem is not None:
        raise RequestError("; ".join([f"{_field(task)}: {problem}", *notes]))
    return held


def _field(task: StageTask) -> str:
    return f"{get_action(task.stage.action).section}.results_dir"
