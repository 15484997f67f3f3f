"""What a spec may not ask of NVIDIA TAO's images though TAO would take it, and what it is not
told; pure, as rules.py.

TAO checks little and passes over much. Refused is what ends in an error only when the GPUs are
held, and what succeeds and is worth nothing; what merely has no effect is noted.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from rtdetr_slurm.actions import ACTIONS, DEPLOY
from rtdetr_slurm.contract import ENGINE_SECTION
from rtdetr_slurm.model_check import Problem
from rtdetr_slurm.spec.backbones import family
from rtdetr_slurm.spec.dataset import ARCHIVE_SUFFIXES, LIST_SUFFIX
from rtdetr_slurm.spec.experiment import ExperimentConfig
from rtdetr_slurm.spec.fields import EVALUATE, TRAINING, FieldRef, Section, is_chosen, users, visit
from rtdetr_slurm.yaml_source import dotted, show

Problems = Iterator[Problem]

IGNORED = frozenset(
    {
        *("wandb.reinit", "wandb.save_code", "wandb.sync_tensorboard"),
        *("model.aux_loss", "model.backbone_names", "model.clip_max_norm"),
        *("model.distillation_loss_coef", "model.linear_proj_names"),
        *("train.optim.momentum", "train.optim.warmup_steps", "train.optim.lr_backbone"),
        *("evaluate.batch_size", "evaluate.input_height", "evaluate.input_width"),
        *("inference.batch_size", "inference.input_height", "inference.input_width"),
        *("inference.outline_width", "export.format"),
    }
)
"""Fields that TAO's RT-DETR declares and never reads, or that miss what they are for."""


Check = Callable[[Any, ExperimentConfig], str | None]
"""What is wrong with a value, in words that follow those of what was found; None: nothing."""


def _only(*allowed: Any, why: str) -> Check:
    names = " or ".join(map(show, allowed))
    return lambda value, _: (
        None if value in allowed else f"allowed with TAO's image: {names}; {why}"
    )


def _saved_at_the_end(interval: Any, experiment: ExperimentConfig) -> str | None:
    epochs = experiment.train.num_epochs
    if experiment.train.checkpoint_interval_unit != "epoch" or epochs % interval == 0:
        return None
    return (
        f"allowed with TAO's image: a number that divides train.num_epochs, {epochs}, for it saves "
        "nothing after the last multiple"
    )


def _algorithm(name: Any, experiment: ExperimentConfig) -> str | None:
    known = experiment.quantize.backend != "modelopt.pytorch" or name != "minmax"
    allowed = "allowed with TAO's image: 'max', 'awq_lite', 'awq_full'"
    return None if known else f"quantize.backend modelopt.pytorch does not know it; {allowed}"


def _folders(entries: Any, _: ExperimentConfig) -> str | None:
    others = [e for e in entries if e.lower().endswith((*ARCHIVE_SUFFIXES, LIST_SUFFIX))]
    return "allowed with TAO's image: folders, with the images in them" if others else None


def _square(preserved: Any, experiment: ExperimentConfig) -> str | None:
    height, width = experiment.dataset.augmentation.eval_spatial_size
    if not preserved or height == width:
        return None
    return "allowed with TAO's image: true with a square eval_spatial_size; it pads to a square"


def _three_of_convnext(levels: Any, experiment: ExperimentConfig) -> str | None:
    backbone = experiment.model.backbone
    if family(backbone) not in ("convnext", "convnextv2") or len(levels) == 3:
        return None
    return f"allowed with TAO's image and {backbone}: three levels"


_NEAREST_BACKBONES = {
    **{f"resnet_{depth}_vd": f"resnet_{depth}" for depth in (18, 34, 50, 101)},
    "fan_tiny": "fan_tiny_8_p4_hybrid",
    **{f"fan_{size}": f"fan_{size}_12_p4_hybrid" for size in ("small", "base", "large")},
}
"""Names that TAO's schema has and its programs do not know, and our own."""
_ONE = _only(1, why="it uses no more")
REFUSED: Mapping[str, Check] = {
    "model.backbone": lambda name, _: (
        f"TAO's image does not have it; the nearest is '{_NEAREST_BACKBONES[name]}'"
        if name in _NEAREST_BACKBONES
        else None
    ),
    "model.return_interm_indices": _three_of_convnext,
    "model.expansion": lambda value, _: (
        None if value == int(value) else "allowed with TAO's image: a whole number"
    ),
    "train.optim.optimizer": _only("AdamW", why="its RT-DETR has no other"),
    "train.checkpoint_interval_unit": _only("epoch", why="its RT-DETR takes all for epochs"),
    "train.checkpoint_interval": _saved_at_the_end,
    "distill.bindings.criterion": _only("IOU", "", why="the others end in an error there"),
    "dataset.augmentation.preserve_aspect_ratio": _square,
    "dataset.infer_data_sources.image_dir": _folders,
    "evaluate.num_nodes": _ONE,
    "inference.num_nodes": _ONE,
    "evaluate.conf_threshold": _only(
        0, why="with a threshold it scores detections against the wrong images"
    ),
    "quantize.layers": lambda layers, _: (
        None if layers else "TAO would quantize nothing, and call it a success"
    ),
    "quantize.algorithm": _algorithm,
    "gen_trt_engine.tensorrt.workspace_size": lambda size, _: (
        None if size >= 1024 else "allowed with TAO's image: ≥ 1024; it makes 0 GiB of less"
    ),
}
"""By field, for the actions that use it."""
REFUSED_IN_TENSORRT: Mapping[str, Check] = {
    "evaluate.num_gpus": _ONE,
    "inference.num_gpus": _ONE,
    "dataset.augmentation.preserve_aspect_ratio": _only(False, why="it stretches images always"),
}


def tao_can_do_it(experiment: ExperimentConfig, action: str) -> Problems:
    deploys = ACTIONS[action].program == DEPLOY
    checks = {**REFUSED, **(REFUSED_IN_TENSORRT if deploys else {})}
    for ref, value in visit(experiment):
        if ref.path[0] == ENGINE_SECTION and ref.nested is None and is_chosen(ref, value):
            yield Problem(ref.path, f"found {show(value)}; TAO's image has no such option")
        check = checks.get(_name(ref))
        if check and action in ref.used_by and (problem := check(value, experiment)):
            yield Problem(ref.path, f"found {show(value)}; {problem}")


TAO_RULES = (tao_can_do_it,)


def _name(ref: FieldRef) -> str:
    """The field's dotted name, of a list's items without their numbers."""
    return dotted(tuple(part for part in ref.path if not isinstance(part, int)))


def notes_on_tao(experiment: ExperimentConfig, actions: Sequence[str]) -> Iterator[str]:
    """What the user of a spec may not expect of TAO's images.

    Args:
        actions: those that run in them.
    """
    if not actions:
        return
    ignored = [
        name
        for ref, value in visit(experiment)
        if (name := _name(ref)) in IGNORED
        and {*actions} & {*ref.used_by}
        and not isinstance(value, Section)
        and is_chosen(ref, value)
    ]
    if ignored:
        yield f"{', '.join(ignored)}: without effect here, as TAO passes over it"
    train, classes = experiment.train, experiment.dataset.eval_class_ids
    if training := [action for action in actions if action in TRAINING]:
        every = train.checkpoint_interval
        after = "each epoch" if every == 1 else f"every {every} epochs"
        yield (
            f"{training[0]}: TAO does not save when it is asked to stop: after preemption or a "
            f"time limit it goes on from its last checkpoint, written after {after} "
            "(train.checkpoint_interval)"
        )
        if train.pretrained_model_path or experiment.model.pretrained_backbone_path:
            yield (
                "TAO takes of pretrained weights what fits by name and shape, also nothing, and "
                "says so only in its log: look for 'Loaded pretrained weights' there"
            )
        if train.num_nodes > 1 and train.num_gpus == 1:
            yield "TAO does not synchronise batch norm over nodes with one GPU each"
    if {*actions} & {*EVALUATE} and classes:
        yield "dataset.eval_class_ids: TAO's evaluate scores all classes all the same"
    tensorrt = experiment.gen_trt_engine.tensorrt
    if {*actions} & {*users("gen_trt_engine")} and tensorrt.data_type == "INT8":
        yield (
            "gen_trt_engine.tensorrt.data_type: of an ONNX file without Q/DQ nodes TAO calibrates "
            "INT8 on images scaled otherwise than those the model sees; compare the accuracy"
        )
