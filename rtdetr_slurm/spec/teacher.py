"""The teacher of a distillation: what the spec gives of it, and what its checkpoint says. Pure."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from pydantic import ValidationError

from rtdetr_slurm.actions import last_that_leaves
from rtdetr_slurm.errors import RequestError
from rtdetr_slurm.model_check import Problem
from rtdetr_slurm.spec.bindings import binding_problems
from rtdetr_slurm.spec.experiment import ExperimentConfig
from rtdetr_slurm.spec.fields import declared, users
from rtdetr_slurm.spec.model import ModelConfig
from rtdetr_slurm.yaml_source import show

TEACHER = ("distill", "teacher")


def given_teacher(experiment: ExperimentConfig) -> ModelConfig | None:
    """The teacher's architecture; None: it is left to the teacher's checkpoint."""
    teacher = experiment.distill.teacher
    return None if teacher == ModelConfig() else teacher


def bindings_can_be_bound(experiment: ExperimentConfig, action: str) -> Iterator[Problem]:
    """The rule of `binding_problems`, as far as the spec gives the teacher."""
    if action in users("distill"):
        yield from binding_problems(experiment, given_teacher(experiment))


def teacher_is_the_model(
    experiment: ExperimentConfig, actions: Sequence[str], index: int
) -> Iterator[Problem]:
    """A teacher that an earlier stage of the chain leaves is a detector of `model`."""
    teacher = given_teacher(experiment)
    made = last_that_leaves("checkpoint", actions[:index])
    named = experiment.distill.pretrained_teacher_model_path
    if actions[index] not in users("distill") or teacher is None or made is None or named:
        return
    for name, found, trained in _differences(teacher, experiment.model):
        yield Problem(
            (*TEACHER, name),
            f"found {show(found)}; the teacher is what {actions[made]} leaves here, whose "
            f"model.{name} is {show(trained)}; allowed: the same, or no distill.teacher",
            also=(("model", name),),
        )


def resolve_teacher(
    experiment: ExperimentConfig, trained: Mapping[str, Any] | None, path: object
) -> tuple[ModelConfig, list[Problem]]:
    """The architecture of the teacher, and why it cannot be the teacher here.

    Args:
        trained: the spec that its checkpoint holds; None: it holds none, as weights from elsewhere,
            whose architecture is what the spec gives.
        path: of the checkpoint.

    Raises:
        RequestError: the spec in the checkpoint is none of this version's.
    """
    given = given_teacher(experiment)
    if trained is None:
        teacher = given or ModelConfig()
        return teacher, [*binding_problems(experiment, teacher)]
    try:
        teacher = ModelConfig.model_validate(trained["model"])
        num_classes = trained["dataset"]["num_classes"]
    except (ValidationError, LookupError, TypeError) as error:
        raise RequestError(f"checkpoint {path}: its spec cannot be read: {error}") from error
    problems = [
        Problem(
            (*TEACHER, name),
            f"found {show(found)}; the teacher's checkpoint, {path}, has {show(there)}; allowed: "
            "the same, or no distill.teacher, which takes all of it from there",
        )
        for name, found, there in ([] if given is None else _differences(given, teacher))
    ]
    if num_classes != experiment.dataset.num_classes:
        problems.append(
            Problem(
                ("dataset", "num_classes"),
                f"found {experiment.dataset.num_classes}; the teacher's checkpoint, {path}, has "
                f"{show(num_classes)}; allowed: the same",
            )
        )
    return given or teacher, [*problems, *binding_problems(experiment, teacher)]


def _differences(teacher: ModelConfig, trained: ModelConfig) -> Iterator[tuple[str, Any, Any]]:
    """Where the architecture that a spec gives is not the one that was trained: the field, and its
    value in each."""
    for ref in declared(ModelConfig):
        if "distill" in (ref.extra("x-carried") or ()):
            name = str(ref.path[-1])
            found, there = getattr(teacher, name), getattr(trained, name)
            if found != there:
                yield name, found, there
