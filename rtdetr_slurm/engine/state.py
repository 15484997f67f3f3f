"""What training changes as it goes, how it is built, and how it goes into a checkpoint and back."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel
from torch.optim import AdamW

from rtdetr_slurm import __version__
from rtdetr_slurm.engine.action import Action
from rtdetr_slurm.engine.checkpoint import Checkpoint, check_num_classes
from rtdetr_slurm.engine.datasets.detection import mix_seed
from rtdetr_slurm.engine.distributed import (
    Context,
    average_norm_statistics,
    average_over_ranks,
    gather_objects,
)
from rtdetr_slurm.engine.ema import Ema
from rtdetr_slurm.engine.models import RTDETR, build_model
from rtdetr_slurm.engine.models.keymap import load_weights
from rtdetr_slurm.engine.optim import build_optimizer, freeze
from rtdetr_slurm.errors import RequestError

if TYPE_CHECKING:
    from rtdetr_slurm.spec import ExperimentConfig
    from rtdetr_slurm.spec.train import CudnnConfig


@dataclass
class Position:
    """Where training stands.

    Attributes:
        epoch: zero-based, the one being worked on.
        step_in_epoch: steps of it that are done.
        step: steps done in all.
        loss_sum: of the epoch's steps so far, on this rank.
    """

    epoch: int = 0
    step_in_epoch: int = 0
    step: int = 0
    loss_sum: float = 0.0


@dataclass
class TrainingState:
    """Everything that a checkpoint holds.

    Attributes:
        model: the detector itself; `forward` is what a step calls (the same, or its DDP wrapper).
        frozen_norms: batch norms that stay in eval mode.
        seed: what the order and augmentation of samples start from.
        ema: None without averaging. scaler: only for fp16.
        metrics: of the last validation.
    """

    model: RTDETR
    forward: nn.Module
    frozen_norms: list[nn.Module]
    optimizer: AdamW
    ema: Ema | None
    scaler: torch.amp.GradScaler | None
    seed: int
    position: Position = field(default_factory=Position)
    metrics: dict[str, Any] = field(default_factory=dict)

    def training_mode(self) -> None:
        self.forward.train()
        for norm in self.frozen_norms:
            norm.eval()

    def scored_model(self, action: Action) -> nn.Module:
        """The weights that validation scores: the averaged ones where there are any."""
        if self.ema is None or action.experiment.train.ema.validate_original_weights:
            return self.model
        return self.ema.module_on(action.context.device)


def build_state(action: Action, seed: int, *, resuming: bool) -> TrainingState:
    """Build model, optimizer and the rest as the spec says.

    Args:
        seed: of the random initialisation and of the random numbers while training.
        resuming: a checkpoint follows, so that no pretrained weights are read.
    """
    cfg, context = action.experiment.train, action.context
    torch.manual_seed(seed)
    model = _build_detector(action, resuming=resuming)
    frozen_norms = freeze(model, cfg.freeze)
    torch.manual_seed(mix_seed(seed, context.rank))
    forward = _distribute(model, context)
    ema = None
    if cfg.enable_ema:
        ema = Ema(model, cfg.ema.decay, cpu_offload=cfg.ema.cpu_offload)
    return TrainingState(
        model=model,
        forward=forward,
        frozen_norms=frozen_norms,
        optimizer=build_optimizer(model, cfg.optim),
        ema=ema,
        scaler=torch.amp.GradScaler("cuda") if cfg.precision == "fp16" else None,
        seed=seed,
    )


def set_cudnn(cfg: CudnnConfig) -> None:
    """cuDNN's switches; `deterministic` asks torch for repeatable kernels where it has them."""
    torch.backends.cudnn.benchmark = cfg.benchmark
    torch.backends.cudnn.deterministic = cfg.deterministic
    if cfg.deterministic:
        os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
        torch.use_deterministic_algorithms(True, warn_only=True)
        torch.utils.deterministic.fill_uninitialized_memory = False  # type: ignore[attr-defined]


def check_precision(precision: str, device: torch.device) -> None:
    """Refuse what the device cannot do."""
    if precision == "fp16" and device.type == "cpu":
        raise RequestError(
            "train.precision fp16 needs a CUDA device; on CPU use fp32 or bf16 "
            "(fp16 would need loss scaling, which CPUs do not support here)"
        )
    if precision == "bf16" and device.type == "cuda" and not torch.cuda.is_bf16_supported():
        raise RequestError(
            f"train.precision bf16 is not supported by {torch.cuda.get_device_name(device)}; "
            "use fp16 or fp32"
        )


def capture(
    state: TrainingState, action: Action, classes: Mapping[int, str], *, complete: bool
) -> Checkpoint:
    """The checkpoint of this moment; every rank must call it, and rank 0's is the whole one.

    Running statistics of plain batch norm are averaged over the ranks first, so that it does not
    matter which rank writes.

    Args:
        complete: whether the epoch is all done, with its validation.
    """
    average_norm_statistics(state.model)
    if state.ema is not None:
        average_norm_statistics(state.ema.module)
    loss_sum = torch.tensor(state.position.loss_sum, device=action.context.device)
    average_over_ranks([loss_sum])
    position = state.position
    return {
        "version": __version__,
        "epoch": position.epoch,
        "step": position.step,
        "step_in_epoch": position.step_in_epoch,
        "complete": complete,
        "model": state.model.state_dict(),
        "ema": None if state.ema is None else state.ema.module.state_dict(),
        "ema_updates": 0 if state.ema is None else state.ema.updates,
        "optimizer": state.optimizer.state_dict(),
        "scaler": None if state.scaler is None else state.scaler.state_dict(),
        "rng": gather_objects(_random_state(action.context.device)),
        "seed": state.seed,
        "world_size": action.context.world_size,
        "batch_size": action.experiment.dataset.batch_size,
        "loss_sum": loss_sum.item(),
        "classes": dict(classes),
        "spec": action.resolved,
        "metrics": state.metrics,
    }


def restore(state: TrainingState, checkpoint: Checkpoint, path: Path, action: Action) -> None:
    """Put `checkpoint` into a freshly built state.

    Raises:
        RequestError: it belongs to another model, or it stands within an epoch and the samples of
            this start would come in another order.
    """
    check_num_classes(checkpoint, action.experiment.dataset.num_classes, path)
    if not checkpoint["complete"]:
        _check_same_order(checkpoint, path, action)
    _load(state.model, checkpoint["model"], path)
    if state.ema is not None:
        _load(state.ema.module, checkpoint["ema"] or checkpoint["model"], path)
        state.ema.updates = checkpoint["ema_updates"]
    _load_optimizer(state.optimizer, checkpoint, path)
    if state.scaler is not None and checkpoint["scaler"]:
        state.scaler.load_state_dict(checkpoint["scaler"])
    if len(checkpoint["rng"]) == action.context.world_size:
        _set_random_state(checkpoint["rng"][action.context.rank], action.context.device)
    if checkpoint["complete"]:
        state.position = Position(epoch=checkpoint["epoch"] + 1, step=checkpoint["step"])
    else:
        state.position = Position(
            checkpoint["epoch"],
            checkpoint["step_in_epoch"],
            checkpoint["step"],
            checkpoint["loss_sum"],
        )
    state.metrics = checkpoint["metrics"]


def _build_detector(action: Action, *, resuming: bool) -> RTDETR:
    experiment, context = action.experiment, action.context
    cfg = experiment.train
    backbone_path = _backbone_weights(experiment)
    constant = bool(backbone_path) and experiment.model.train_backbone
    recompute = cfg.activation_checkpoint and context.device.type == "cuda"
    if cfg.activation_checkpoint and not recompute:
        action.say(
            "activation checkpointing is off on CPU: it saves GPU memory, and changes no result"
        )
    model = build_model(
        experiment.model,
        experiment.dataset.num_classes,
        freeze_norm=constant,
        freeze_stem=constant,
        activation_checkpoint=recompute,
    )
    if cfg.pretrained_model_path and not resuming:
        action.say(str(load_weights(model, Path(cfg.pretrained_model_path), part="detector")))
    elif backbone_path and not resuming:
        action.say(str(load_weights(model, Path(backbone_path), part="backbone")))
        if constant:
            action.say("the pretrained backbone's stem and batch norms are kept as they are")
    return model.to(context.device).to(memory_format=torch.channels_last)


def _backbone_weights(experiment: ExperimentConfig) -> str:
    """Weights for the backbone alone; a whole pretrained detector takes their place."""
    return (
        "" if experiment.train.pretrained_model_path else experiment.model.pretrained_backbone_path
    )


def _distribute(model: RTDETR, context: Context) -> nn.Module:
    """DDP where there is more than one rank; batch norm is synchronised on CUDA."""
    if context.world_size == 1:
        return model
    if context.device.type == "cuda":
        for name, child in model.named_children():
            setattr(model, name, nn.SyncBatchNorm.convert_sync_batchnorm(child))
    return DistributedDataParallel(
        model,
        device_ids=[context.device] if context.device.type == "cuda" else None,
        broadcast_buffers=False,
        gradient_as_bucket_view=True,
    )


def _check_same_order(checkpoint: Checkpoint, path: Path, action: Action) -> None:
    for name, now in (
        ("world_size", action.context.world_size),
        ("batch_size", action.experiment.dataset.batch_size),
    ):
        if checkpoint[name] != now:
            raise RequestError(
                f"checkpoint {path} was written in the middle of epoch {checkpoint['epoch']} with "
                f"{name} {checkpoint[name]}; this start has {now}. Use the same, or resume from a "
                "model_epoch checkpoint"
            )


def _load(module: nn.Module, weights: Mapping[str, Tensor], path: Path) -> None:
    ours = module.state_dict()
    problems = [f"{name} is missing" for name in ours.keys() - weights.keys()]
    problems += [f"{name} is not in the model" for name in weights.keys() - ours.keys()]
    problems += [
        f"{name} has shape {list(weights[name].shape)}, the model {list(ours[name].shape)}"
        for name in ours.keys() & weights.keys()
        if ours[name].shape != weights[name].shape
    ]
    if problems:
        shown = "\n  ".join(sorted(problems)[:10])
        raise RequestError(
            f"checkpoint {path} belongs to another model ({len(problems)} differences); the model "
            f"section must be the one it was trained with:\n  {shown}"
        )
    module.load_state_dict(weights)


def _load_optimizer(optimizer: AdamW, checkpoint: Checkpoint, path: Path) -> None:
    """Moments and step counts; rates and decay stay those of the present spec."""
    stored = checkpoint["optimizer"]
    sizes = [len(group["params"]) for group in optimizer.param_groups]
    if sizes != [len(group["params"]) for group in stored["param_groups"]]:
        raise RequestError(
            f"checkpoint {path} trained other parameters: train.freeze, model.train_backbone and "
            "model.pretrained_backbone_path must be as they were"
        )
    now = [{k: v for k, v in group.items() if k != "params"} for group in optimizer.param_groups]
    optimizer.load_state_dict(stored)
    for group, settings in zip(optimizer.param_groups, now, strict=True):
        group.update(settings)


def _random_state(device: torch.device) -> dict[str, Tensor | None]:
    cuda = torch.cuda.get_rng_state(device) if device.type == "cuda" else None
    return {"cpu": torch.get_rng_state(), "cuda": cuda}


def _set_random_state(state: Mapping[str, Tensor | None], device: torch.device) -> None:
    cpu, cuda = state["cpu"], state["cuda"]
    if cpu is not None:
        torch.set_rng_state(cpu)
    if cuda is not None and device.type == "cuda":
        torch.cuda.set_rng_state(cuda, device)
