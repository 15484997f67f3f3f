"""best.json: which checkpoint of which trial a search has chosen. Standard library only."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from rtdetr_slurm.contract import BEST_JSON, BEST_VERSION
from rtdetr_slurm.errors import RequestError
from rtdetr_slurm.files import sha256_of, write_atomic
from rtdetr_slurm.plan.model import Plan, Stage, StageTask
from rtdetr_slurm.plan.search import Search
from rtdetr_slurm.records import read_record
from rtdetr_slurm.runs.checkpoints import is_checkpoint_name
from rtdetr_slurm.runs.choice import Chosen
from rtdetr_slurm.runs.run import Run


@dataclass(frozen=True)
class Best:
    """What a search has chosen.

    Attributes:
        action: that the trial ran.
        epoch: of the checkpoint, counted from 0.
        checkpoint: name of the file in the trial's results folder.
        metric, value: what it was chosen by.
        values: what the trial has in the spec, by dotted path, where others may have something
            else.
    """

    trial: int
    action: str
    epoch: int
    checkpoint: str
    sha256: str
    metric: str
    value: float
    values: Mapping[str, Any] = field(default_factory=dict)
    schema_version: int = BEST_VERSION

    def __post_init__(self) -> None:
        if self.trial < 0:
            raise RequestError(f"trial: found {self.trial}; expected 0 or more")
        if not is_checkpoint_name(self.checkpoint):
            raise RequestError(f"checkpoint: {self.checkpoint!r} is no checkpoint's name")


def keep_best(search: Search, best: Best) -> None:
    """Write best.json.

    Raises:
        OSError: it cannot be written.
    """
    text = json.dumps(asdict(best), indent=2, allow_nan=False)
    write_atomic(search.path / BEST_JSON, text + "\n")


def read_best(search: Search) -> Best | None:
    """What a search has chosen; None while it has not.

    Raises:
        NewerVersion, BadRecord: it cannot be read.
    """
    return read_record(Best, search.path / BEST_JSON, BEST_VERSION)


def chosen_by(run: Run, stage: Stage) -> Best | None:
    """What a stage that finds the best trial has chosen; None of any other, and while it has not.

    Raises:
        NewerVersion, BadRecord: its record cannot be read.
    """
    search = None if stage.best_of is None else run.plan.stage(stage.best_of).search
    return None if search is None else read_best(search)


def best_of(run: Run, stage: Stage) -> tuple[Path, Best]:
    """What a stage that finds the best trial has chosen, and the results folder of that.

    Raises:
        RequestError: it has not chosen (yet), or its record cannot be read.
    """
    best = chosen_by(run, stage)
    if best is None:
        raise RequestError(f"{stage.name} of run {run.id} has chosen no trial")
    searching = run.plan.stage(str(stage.best_of))
    return StageTask(searching, trial=best.trial).results_dir, best


def chosen_checkpoint(folder: Path, best: Best) -> Chosen:
    """The checkpoint that a search has chosen, as it was then.

    Args:
        folder: results folder of the best trial.

    Raises:
        RequestError: it has gone or changed since.
    """
    path = folder / best.checkpoint
    try:
        same = sha256_of(path) == best.sha256
    except OSError as error:
        raise RequestError(f"{path} cannot be read: {error.strerror}") from error
    if not same:
        raise RequestError(f"{path} is not what {BEST_JSON} of its search was written about")
    about = f"trial {best.trial}, epoch {best.epoch}, {best.metric} {best.value:.4f}"
    return Chosen(path, about, best.epoch + 1)


def values_before(run: Run, stage: Stage) -> Mapping[str, Any]:
    """What the spec has for a stage whose model comes from a search of the same run, instead of
    what all trials began from: what the best trial has. Nothing for another stage.

    Raises:
        RequestError: as best_of.
    """
    for one in _makers(run.plan, stage):
        if one.best_of is not None:
            return best_of(run, one)[1].values
    return {}


def _makers(plan: Plan, stage: Stage) -> Iterator[Stage]:
    """The stages of its plan that made what a stage takes, the nearest first."""
    for one in stage.inputs:
        if one.origin is not None and one.origin.run is None:
            maker = plan.stage(one.origin.stage)
            yield maker
            yield from _makers(plan, maker)
