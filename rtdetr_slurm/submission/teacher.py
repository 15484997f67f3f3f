"""The teacher of a distillation, looked at before anything is queued."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from rtdetr_slurm.model_check import InvalidInput, locate
from rtdetr_slurm.plan.model import Plan
from rtdetr_slurm.resolved_spec import local_path, value_at
from rtdetr_slurm.runs.checkpoint_record import stored_spec
from rtdetr_slurm.spec import LoadedSpec
from rtdetr_slurm.spec.fields import users
from rtdetr_slurm.spec.teacher import resolve_teacher

_FIELD = "distill.pretrained_teacher_model_path"


def check_teacher(loaded: LoadedSpec, spec: Mapping[str, Any], plan: Plan) -> None:
    """Refuse a teacher whose checkpoint says that it is another detector than the spec has it, or
    that has nothing to bind as distill.bindings wants it.

    A teacher that a stage or a run will leave, and weights from elsewhere, are not looked at.

    Args:
        spec: frozen, of `loaded`.

    Raises:
        InvalidInput: with every reason, by the places in the spec.
        RequestError: the file cannot be read.
    """
    distills = any(stage.action in users("distill") for stage in plan.stages)
    path = local_path(value_at(spec, _FIELD) or "") if distills else None
    if path is None or path == Path() or not path.is_file():
        return  # what is missing is said elsewhere; what an earlier stage writes is not there yet
    trained = stored_spec(path)
    if trained is None:
        return
    _, problems = resolve_teacher(loaded.experiment, trained, path)
    if problems:
        raise InvalidInput(locate(loaded.source, problems))
