"""What distillation can bring together: features of student and teacher, by their names. Pure."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

from rtdetr_slurm.model_check import Problem
from rtdetr_slurm.spec.backbones import Tree, puts_out_map
from rtdetr_slurm.spec.experiment import ExperimentConfig
from rtdetr_slurm.spec.model import ModelConfig
from rtdetr_slurm.spec.modules import detector_modules, find, model_modules
from rtdetr_slurm.yaml_source import KeyPath, show

SRCS, DSRCS = "srcs", "dsrcs"
"""The maps inside the encoder, before they are fused across the scales; and its output."""

_PARTS = ("backbone", "encoder", "decoder")
"""Of the detector, each fed by the one before."""
_MAPS_OF_DECODER = "decoder.input_proj"
_LISTS = frozenset(
    {"layers", "input_proj", "lateral_convs", "fpn_blocks", "downsample_convs", "pan_blocks"}
)
"""Last names of lists of modules in the encoder; `encoder.encoder` is one, too."""


@dataclass(frozen=True)
class Feature:
    """What a name stands for.

    Attributes:
        kind: `maps`: one per level; `map`: one of [B, C, H, W]; `cells`: those of one map as
            tokens, [B, N, C].
        size: of maps, how many; of cells, the stride of their map.
    """

    kind: Literal["maps", "map", "cells"]
    size: int = 1

    def __str__(self) -> str:
        return {
            "maps": f"{self.size} maps, one per level",
            "map": "one map",
            "cells": f"the cells of a map of stride {self.size}",
        }[self.kind]


def feature_modules(name: str, model: ModelConfig) -> tuple[str, ...]:
    """The modules whose outputs, one after the other, are the feature called `name`."""
    if name == DSRCS:
        return ("encoder",)
    if name != SRCS:
        return (name,)
    transformed = {level: index for index, level in enumerate(model.use_encoder_idx)}
    return tuple(
        f"encoder.encoder.{transformed[level]}"
        if level in transformed
        else f"encoder.input_proj.{level}"
        for level in range(model.num_feature_levels)
    )


def binding_problems(
    experiment: ExperimentConfig, teacher: ModelConfig | None
) -> Iterator[Problem]:
    """Both sides of a binding exist, are of one kind, and the student's can be taught.

    Args:
        teacher: its architecture; None where it is not known yet.
    """
    if not _is_built(experiment.model):
        return
    student_tree = detector_modules(experiment)
    teacher_tree = model_modules(teacher) if teacher is not None and _is_built(teacher) else None
    for index, binding in enumerate(experiment.distill.bindings):
        at: KeyPath = ("distill", "bindings", index)
        sides = [("student", binding.student_module_name, experiment.model, student_tree)]
        if teacher is not None and teacher_tree is not None:
            sides.append(("teacher", binding.teacher_module_name, teacher, teacher_tree))
        features: list[Feature] = []
        for who, name, model, tree in sides:
            if not name or (binding.criterion == "IOU" and name not in (SRCS, DSRCS)):
                continue  # what is missing, and what IOU cannot compare, is said elsewhere
            found = feature_called(name, model, tree)
            if isinstance(found, Feature):
                features.append(found)
            else:
                reason = found.replace("DETECTOR", who)
                yield Problem((*at, f"{who}_module_name"), f"found {show(name)}, {reason}")
        if _is_frozen(binding.student_module_name, experiment):
            yield Problem(
                (*at, "student_module_name"),
                f"found {show(binding.student_module_name)}, and nothing that leads to it is "
                "trained: the student cannot learn it",
                also=(("train", "freeze"), ("model", "train_backbone")),
            )
        if binding.criterion == "IOU" and teacher is not None and _differ(teacher):
            yield Problem(
                (*at, "criterion"),
                f"found IOU; it compares the teacher's queries, {teacher.hidden_dim} wide "
                f"(hidden_dim), with its maps, {teacher.feat_channels[0]} wide (feat_channels); "
                "allowed with this teacher: L1, L2 or KL",
            )
        if len(features) == 2 and features[0] != features[1]:
            yield Problem(
                (*at, "teacher_module_name"),
                f"found {show(binding.teacher_module_name)}, which is {features[1]}; the "
                f"student's {show(binding.student_module_name)} is {features[0]}",
                also=((*at, "student_module_name"),),
            )


def _is_built(model: ModelConfig) -> bool:
    """Whether the detector's structure is known; other rules say why not."""
    levels = (model.return_interm_indices, model.feat_channels)
    return all(len(each) == model.num_feature_levels for each in levels)


def feature_called(name: str, model: ModelConfig, tree: Tree) -> Feature | str:
    """The feature called `name`, or why there is none, of DETECTOR."""
    if name in (SRCS, DSRCS):
        return Feature("maps", model.num_feature_levels)
    known, inside = find(tree, name)
    if known != name:
        there = ", ".join(inside or ()) or "nothing inside"
        return (
            f"which the DETECTOR does not have; {known or 'it'} has {there}; allowed: {SRCS}, "
            f"{DSRCS}, or the dotted name of a module"
        )
    if inside is None:
        return "which is a parameter of the DETECTOR; allowed: the module that has it"
    part, last = name.split(".")[0], name.split(".")[-1]
    if part == "decoder" and not name.startswith(_MAPS_OF_DECODER):
        return (
            "which computes on queries: the DETECTOR's are its own choice of cells, and nothing "
            f"says which query of the other detector belongs to which; allowed: {SRCS}, {DSRCS}, "
            f"or a module of backbone, encoder or {_MAPS_OF_DECODER}"
        )
    if name in ("backbone", "encoder"):
        return Feature("maps", model.num_feature_levels)
    if part == "backbone":
        return _feature_of_backbone(name, model)
    if last in _LISTS or name == "encoder.encoder":
        return f"which is a list without an output of its own; allowed: one of it, {name}.0"
    if name.startswith("encoder.encoder.") and ".layers." in name:
        level = model.use_encoder_idx[int(name.split(".")[2])]
        return Feature("cells", 4 * 2 ** model.return_interm_indices[level])
    return Feature("map")


def _feature_of_backbone(name: str, model: ModelConfig) -> Feature | str:
    around = name.rpartition(".")[0]
    if not puts_out_map(model.backbone, name.partition(".")[2]):
        return (
            "which puts out no map of the image; allowed: a module of the DETECTOR that does, such "
            f"as {_nearest_map(around, model)}"
        )
    return Feature("map")


def _nearest_map(name: str, model: ModelConfig) -> str:
    """The innermost module around that puts out a map; else the whole backbone."""
    while name != "backbone" and not puts_out_map(model.backbone, name.partition(".")[2]):
        name = name.rpartition(".")[0]
    return name


def _differ(teacher: ModelConfig) -> bool:
    return any(width != teacher.hidden_dim for width in teacher.feat_channels)


def _is_frozen(name: str, experiment: ExperimentConfig) -> bool:
    """Whether all parts of the student up to the one that has this feature are frozen."""
    part = "encoder" if name in (SRCS, DSRCS) else name.split(".")[0]
    if part not in _PARTS:
        return False
    frozen = {*experiment.train.freeze}
    frozen |= set() if experiment.model.train_backbone else {"backbone"}
    return {*_PARTS[: _PARTS.index(part) + 1]} <= frozen
