"""The spec a stage runs with: its inputs are filled in once, when it starts."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rtdetr_slurm.errors import ActionError, RequestError
from rtdetr_slurm.plan.model import Input, Origin, StageTask
from rtdetr_slurm.resolved_spec import local_path, with_value
from rtdetr_slurm.runs.artefacts import parent_model
from rtdetr_slurm.runs.run import Run, open_run


@dataclass(frozen=True)
class Resolved:
    """The value of one input.

    Attributes:
        source: in words, for the record: `parent_model of train`.
    """

    field: str
    value: str
    source: str


def resolve_inputs(run: Run, task: StageTask) -> list[Resolved]:
    """The values of a task's inputs, now.

    Raises:
        ActionError: what an input comes from has left nothing that can be used.
    """
    return [_resolved(run, task, one) for one in task.stage.inputs]


def filled_in(spec: Mapping[str, Any], values: list[Resolved]) -> dict[str, Any]:
    """A copy of the frozen spec with the inputs in their places."""
    filled = dict(spec)
    for one in values:
        filled = with_value(filled, one.field, one.value)
    return filled


def _resolved(run: Run, task: StageTask, one: Input) -> Resolved:
    if one.function == "output_dir":
        return Resolved(one.field, str(task.results_dir), one.source)
    if one.function == "parent_model" and one.origin is not None:
        return Resolved(one.field, str(_parent_model(run, one.origin, one.field)), one.source)
    if one.function == "fetch" and one.uri is not None:
        return Resolved(one.field, str(_file(one.uri, one.field)), one.source)
    raise ActionError(f"{one.field}: there is no inference function '{one.function}' here")


def _file(uri: str, field: str) -> Path:
    path = local_path(uri)
    if path is None or not path.exists():
        raise ActionError(f"{field}: {uri} does not exist on this node")
    return path


def _parent_model(run: Run, origin: Origin, field: str) -> Path:
    try:
        parent = run if origin.run is None else open_run(Path(origin.run))
        folder = StageTask(parent.plan.stage(origin.stage)).results_dir
    except RequestError as error:
        raise ActionError(f"{field}: {origin} cannot be read: {error}") from error
    found = parent_model(folder)
    if found is None:
        raise ActionError(f"{field}: {origin} has left no whole checkpoint in {folder}")
    return found.path
