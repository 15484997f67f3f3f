"""The learning rate as a function of epoch and step."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from torch.optim import Optimizer

from rtdetr_slurm.engine.recipe import Recipe

if TYPE_CHECKING:
    from rtdetr_slurm.spec.train import OptimConfig


LAST_RATE = 0.5
"""Of DEIM's learning rate at the end, in full rates."""


def lr_factor(
    cfg: OptimConfig, recipe: Recipe, epoch: int, step: int, steps_per_epoch: int
) -> float:
    """What every group's rate is multiplied by.

    Args:
        epoch: zero-based; MultiStep decays at the start of the epochs in `lr_steps`, StepLR every
            `lr_step_size` epochs, and with the recipe deim a cosine takes the place of both.
        step: zero-based count of optimizer steps; the rate rises over `warmup_steps`, or those of
            the recipe: linearly, and quadratically with deim.
    """
    if recipe.name == "deim":
        return _flat_cosine(recipe, epoch) * _risen(cfg, recipe, step, steps_per_epoch) ** 2
    if cfg.lr_scheduler == "StepLR":
        decays = epoch // cfg.lr_step_size
    else:
        decays = sum(epoch >= milestone for milestone in cfg.lr_steps)
    return float(cfg.lr_decay**decays * _risen(cfg, recipe, step, steps_per_epoch))


def _risen(cfg: OptimConfig, recipe: Recipe, step: int, steps_per_epoch: int) -> float:
    """The share of the warm-up that is done with this step."""
    steps = cfg.warmup_steps or recipe.warmup_steps(steps_per_epoch)
    return min(1.0, (step + 1) / steps) if steps else 1.0


def _flat_cosine(recipe: Recipe, epoch: int) -> float:
    """1 in the dense epochs and before, LAST_RATE in the plain ones at the end, and half a turn of
    a cosine, epoch by epoch, from one to the other."""
    flat = recipe.dense.stop
    if epoch < flat:
        return 1.0
    if epoch >= recipe.end:
        return LAST_RATE
    turn = math.pi * (epoch - flat) / (recipe.end - flat)
    return LAST_RATE + (1 - LAST_RATE) * (1 + math.cos(turn)) / 2


def set_learning_rate(optimizer: Optimizer, factor: float) -> float:
    """Apply `factor` to every group; returns the rate of the last one, for the log."""
    rate = 0.0
    for group in optimizer.param_groups:
        rate = group["lr"] = group["base_lr"] * factor
    return rate
