"""The teacher of a distillation, looked at before anything is queued."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from rtdetr_slurm.encryption import is_encrypted
from rtdetr_slurm.model_check import InvalidInput, locate
from rtdetr_slurm.plan.model import Plan
from rtdetr_slurm.resolved_spec import local_path, value_at
from rtdetr_slurm.runs.checkpoint_record import read_weights_record
from rtdetr_slurm.spec import LoadedSpec
from rtdetr_slurm.spec.fields import users
from rtdetr_slurm.spec.teacher import TEACHER, resolve_teacher
from rtdetr_slurm.weights import other_detector
from rtdetr_slurm.yaml_source import dotted

_AT = ("distill", "pretrained_teacher_model_path")


def check_teacher(loaded: LoadedSpec, spec: Mapping[str, Any], plan: Plan) -> None:
    """Refuse a teacher whose file says that it is another detector than the spec has it, or that
    has nothing to bind as distill.bindings wants it.

    A teacher that a stage or a run will leave is not looked at, nor one that is encrypted.

    Args:
        spec: frozen, of `loaded`.

    Raises:
        InvalidInput: with every reason, by the places in the spec.
        RequestError: the file cannot be read.
    """
    engines = {s.launch.engine for s in plan.stages if s.action in users("distill")}
    path = local_path(value_at(spec, dotted(_AT)) or "") if engines else None
    if path is None or path == Path() or not path.is_file():
        return  # what is missing is said elsewhere; what an earlier stage writes is not there yet
    if is_encrypted(path):
        return
    record, experiment = read_weights_record(path), loaded.experiment
    teacher, problems = resolve_teacher(experiment, record.spec, path)
    if record.spec is None and "rtdetr" in engines:
        classes = experiment.dataset.num_classes
        problems += other_detector(record, path, teacher, classes, _AT, model_at=TEACHER)
    if problems:
        raise InvalidInput(locate(loaded.source, problems))
