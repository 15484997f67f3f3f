"""Fields that change nothing in what a spec trains, so that a search of them is wasted. Pure."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from rtdetr_slurm.spec import ExperimentConfig
from rtdetr_slurm.spec.fields import FieldRef

SPEED_ONLY = ("dataset.workers", "dataset.pin_memory", "dataset.dataset_type")
"""What changes how fast a detector is trained, and not which."""
SAME_FOR_ALL = (
    *("train.num_epochs", "train.validation_interval", "train.is_dry_run"),
    *("train.checkpoint_interval", "train.checkpoint_interval_unit"),
    *("train.num_nodes", "train.num_gpus", "train.gpu_ids", "train.distributed_strategy"),
    "engine.elastic",
)
"""What is the same for every trial, for trials are compared epoch by epoch, on the same GPUs."""


def why_idle(ref: FieldRef, experiment: ExperimentConfig, action: str) -> str | None:
    """Why no value of a field would change what an action trains; None where one would."""
    if ref.idle is not None:
        return ref.idle
    if action not in ref.used_by or action in ref.no_effect_in:
        return f"it has no effect in {action}"
    if action not in ref.honoured_by:
        return f"only its default works in {action}"
    rule = _RULES.get(".".join(map(str, ref.path)))
    return None if rule is None else rule(experiment)


def _ema(experiment: ExperimentConfig) -> str | None:
    return None if experiment.train.enable_ema else "train.enable_ema is false"


def _decided(experiment: ExperimentConfig) -> str | None:
    deim = experiment.engine.recipe == "deim"
    return "engine.recipe deim has a loss and a learning rate of its own" if deim else None


def _step_size(experiment: ExperimentConfig) -> str | None:
    if why := _decided(experiment):
        return why
    scheduler = experiment.train.optim.lr_scheduler
    return None if scheduler == "StepLR" else f"train.optim.lr_scheduler is {scheduler}"


def _momentum(experiment: ExperimentConfig) -> str | None:
    optimizer = experiment.train.optim.optimizer
    return None if optimizer == "SGD" else f"train.optim.optimizer is {optimizer}"


def _decay(experiment: ExperimentConfig) -> str | None:
    if why := _decided(experiment):
        return why
    train, optim = experiment.train, experiment.train.optim
    steps = [optim.lr_step_size] if optim.lr_scheduler == "StepLR" else optim.lr_steps
    if any(step < train.num_epochs for step in steps):
        return None
    return f"the learning rates do not drop within {train.num_epochs} epochs"


def _backbone(experiment: ExperimentConfig) -> str | None:
    frozen = "backbone" in experiment.train.freeze or not experiment.model.train_backbone
    return "the backbone is not trained" if frozen else None


def _boxes(experiment: ExperimentConfig) -> str | None:
    boxes = "boxes" in experiment.model.loss_types
    return None if boxes else "model.loss_types has no boxes"


def _vfl(experiment: ExperimentConfig) -> str | None:
    return None if "vfl" in experiment.model.loss_types else "model.loss_types has no vfl"


def _varifocal(experiment: ExperimentConfig) -> str | None:
    return _decided(experiment) or _vfl(experiment)


_RULES: Mapping[str, Callable[[ExperimentConfig], str | None]] = {
    "train.ema.decay": _ema,
    "train.ema.every_n_steps": _ema,
    "train.ema.validate_original_weights": _ema,
    "train.ema.cpu_offload": _ema,
    "train.optim.momentum": _momentum,
    "train.optim.lr_step_size": _step_size,
    "train.optim.lr_decay": _decay,
    "train.optim.lr_backbone": _backbone,
    "model.bbox_loss_coef": _boxes,
    "model.giou_loss_coef": _boxes,
    "model.vfl_loss_coef": _vfl,
    "model.alpha": _varifocal,
    "model.gamma": _varifocal,
}
