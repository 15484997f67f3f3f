"""The learning rate as a function of epoch and step."""

from __future__ import annotations

from typing import TYPE_CHECKING

from torch.optim import Optimizer

if TYPE_CHECKING:
    from rtdetr_slurm.spec.train import OptimConfig


def lr_factor(cfg: OptimConfig, epoch: int, step: int) -> float:
    """What every group's rate is multiplied by.

    Args:
        epoch: zero-based; MultiStep decays at the start of the epochs in `lr_steps`, StepLR every
            `lr_step_size` epochs.
        step: zero-based count of optimizer steps; the rate rises linearly over `warmup_steps`.
    """
    if cfg.lr_scheduler == "StepLR":
        decays = epoch // cfg.lr_step_size
    else:
        decays = sum(epoch >= milestone for milestone in cfg.lr_steps)
    warmup = min(1.0, (step + 1) / cfg.warmup_steps) if cfg.warmup_steps else 1.0
    return float(cfg.lr_decay**decays * warmup)


def set_learning_rate(optimizer: Optimizer, factor: float) -> float:
    """Apply `factor` to every group; returns the rate of the last one, for the log."""
    rate = 0.0
    for group in optimizer.param_groups:
        rate = group["lr"] = group["base_lr"] * factor
    return rate
