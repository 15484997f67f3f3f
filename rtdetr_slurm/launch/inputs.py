"""The spec a stage runs with: its inputs are filled in once, when it starts."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from rtdetr_slurm.contract import Infer
from rtdetr_slurm.errors import ActionError, RequestError
from rtdetr_slurm.files import sha256_of
from rtdetr_slurm.plan.model import Input, StageTask
from rtdetr_slurm.records import checked, read_json
from rtdetr_slurm.resolved_spec import value_at, with_values
from rtdetr_slurm.runs.choice import Chosen
from rtdetr_slurm.runs.inference import infer
from rtdetr_slurm.runs.run import Run

INPUTS_JSON = "inputs.json"
"""In the task's folder: what its inputs were filled with, for the node wrappers and for people."""


@dataclass(frozen=True)
class Resolved:
    """The value of one input.

    Attributes:
        source: in words, for the record: `parent_model of train`.
        about: what there is to say about the file that was chosen.
        sha256: of a file that somebody else has made.
    """

    field: str
    value: str
    source: str
    about: str = ""
    sha256: str | None = None


def resolve_inputs(run: Run, task: StageTask) -> list[Resolved]:
    """The values of a task's inputs, now.

    Raises:
        ActionError: what an input comes from has left nothing that can be used.
    """
    return [_resolved(run, task, one) for one in task.stage.inputs]


def read_inputs(run: Run, task: StageTask) -> tuple[Resolved, ...]:
    """What a task's inputs were filled with when it was prepared.

    Raises:
        BadRecord, OSError: that cannot be read.
    """
    path = run.job_dir(task.name) / INPUTS_JSON
    return checked(tuple[Resolved, ...], read_json(path), path)


def filled_in(spec: Mapping[str, Any], values: list[Resolved]) -> dict[str, Any]:
    """A copy of the frozen spec with the inputs in their places."""
    return with_values(spec, {one.field: one.value for one in values})


def _resolved(run: Run, task: StageTask, one: Input) -> Resolved:
    try:
        chosen = infer(run, task, one)
    except RequestError as error:
        place = f"{one.field} from {one.origin}" if one.origin else one.field
        raise ActionError(f"{place}: {error}") from error
    if one.function == Infer.RESUME_MODEL:
        _check_epochs_left(run, one, chosen)
    taken = (one.origin is not None or one.uri is not None) and chosen.path.is_file()
    digest = sha256_of(chosen.path) if taken else None
    return Resolved(one.field, str(chosen.path), one.source, chosen.about, digest)


def _check_epochs_left(run: Run, one: Input, chosen: Chosen) -> None:
    wanted = value_at(run.spec, "train.num_epochs")
    if chosen.epochs is not None and isinstance(wanted, int) and wanted <= chosen.epochs:
        raise ActionError(
            f"train.num_epochs is {wanted}, and {chosen.path} from {one.origin} has "
            f"{chosen.epochs} of them behind it: there is nothing left to train; submit with more"
        )
