"""What training works with: what stays the same, and what it changes as it goes."""

from __future__ import annotations

import copy
import math
from collections.abc import Mapping
from dataclasses import dataclass, field

import torch
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.optim import Optimizer

from rtdetr_slurm.engine.datasets.seeds import mix_seed
from rtdetr_slurm.engine.datasets.sources import EvaluationShare, TrainingData
from rtdetr_slurm.engine.losses import Criterion
from rtdetr_slurm.engine.models import RTDETR
from rtdetr_slurm.engine.process.distributed import average_norm_statistics, plain_norms
from rtdetr_slurm.engine.process.session import Session
from rtdetr_slurm.engine.training.ema import Ema
from rtdetr_slurm.engine.training.loggers import Loggers
from rtdetr_slurm.engine.training.objective import DetectionObjective
from rtdetr_slurm.engine.training.optim import build_optimizer, freeze
from rtdetr_slurm.engine.training.parallel import distribute, split, whole
from rtdetr_slurm.engine.training.precision import training_precision
from rtdetr_slurm.engine.training.progress import TrainingProgress


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
        model: the detector.
        objective: what a step calls, with the detector inside; the DDP wrapper of several ranks.
        auxiliary: what the objective trains beside the detector.
        frozen_norms: batch norms that stay in eval mode.
        plain_norms: batch norms that only see their rank's batches, where there are several ranks.
        seed: what the order and augmentation of samples start from.
        ema: None without averaging. scaler: only for fp16.
        unsplit: where model and ema are split over the ranks (fsdp), such a detector in one piece,
            in host memory and with other weights; else None.
        history: KPI to epoch to value, of the epochs so far; on rank 0 the scores, too.
    """

    model: RTDETR
    objective: nn.Module
    auxiliary: nn.Module
    frozen_norms: list[nn.Module]
    plain_norms: list[_BatchNorm]
    optimizer: Optimizer
    ema: Ema | None
    scaler: torch.amp.GradScaler | None
    seed: int
    unsplit: RTDETR | None = None
    position: Position = field(default_factory=Position)
    history: dict[str, dict[int, float]] = field(default_factory=dict)

    def training_mode(self) -> None:
        self.objective.train()
        for norm in self.frozen_norms:
            norm.eval()

    def remember(self, epoch: int, kpi: Mapping[str, float | None]) -> None:
        """Put into the history what an epoch has reached; what is no number is left out."""
        for name, value in kpi.items():
            if value is not None and math.isfinite(value):
                self.history.setdefault(name, {})[epoch] = value

    def average_norms(self) -> None:
        """Make running statistics those of all ranks; every rank must call it, after every step, so
        that it makes no difference when a training is saved or interrupted."""
        average_norm_statistics(self.plain_norms)

    def scored_model(self, session: Session) -> nn.Module:
        """The weights that validation scores: the averaged ones where there are any. In one piece,
        for the ranks score batches of their own; every rank must call it."""
        device = session.context.device
        original = self.ema is None or session.experiment.train.ema.validate_original_weights
        if self.unsplit is not None:
            source = self.model if original or self.ema is None else self.ema.module
            scored = copy.deepcopy(self.unsplit)
            scored.load_state_dict(whole(source.state_dict()))
            return scored.to(device)
        return self.model if original or self.ema is None else self.ema.module_on(device)


@dataclass
class Training:
    """A training, as its loop and its reports see it.

    Attributes:
        validation: None where nothing is scored.
        criterion: of the validation loss.
        costs: KPI to value, of each epoch besides its scores.
    """

    session: Session
    data: TrainingData
    validation: EvaluationShare | None
    state: TrainingState
    criterion: Criterion
    costs: Mapping[str, float]
    progress: TrainingProgress
    loggers: Loggers

    @property
    def steps_left(self) -> int:
        """Of all epochs; those that are done may have had other batches, and so more or fewer."""
        position = self.state.position
        epochs = self.session.experiment.train.num_epochs - position.epoch
        return epochs * self.data.sampler.steps_per_epoch - position.step_in_epoch


def build_state(
    session: Session, model: RTDETR, objective: DetectionObjective, seed: int
) -> TrainingState:
    """Optimizer and the rest for a detector and the objective that holds it.

    Args:
        seed: of the random numbers while training; every rank has its own.

    Raises:
        RequestError: train.freeze does not fit the detector.
    """
    cfg, context = session.experiment.train, session.context
    precision = training_precision(cfg, context.device)
    frozen_norms = freeze(model, cfg.freeze)
    torch.manual_seed(mix_seed(seed, context.rank))
    ema = None
    if cfg.enable_ema:
        ema = Ema(model, cfg.ema.decay, cpu_offload=cfg.ema.cpu_offload)
    splits = cfg.distributed_strategy == "fsdp" and context.world_size > 1
    unsplit = copy.deepcopy(model).cpu() if splits else None
    distributed = distribute(model, objective, context, cfg.distributed_strategy)
    if ema is not None and splits:
        split(ema.module, context)
        ema.follow(model)
    return TrainingState(
        model=model,
        objective=distributed,
        auxiliary=objective.auxiliary,
        frozen_norms=frozen_norms,
        plain_norms=plain_norms(model) if context.world_size > 1 else [],
        optimizer=build_optimizer(model, cfg.optim, objective.auxiliary),
        ema=ema,
        scaler=torch.amp.GradScaler("cuda") if precision == "fp16" else None,
        seed=seed,
        unsplit=unsplit,
    )
