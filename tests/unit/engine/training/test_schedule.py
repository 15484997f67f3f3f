"""The learning rate."""

from __future__ import annotations

import math

import pytest
import torch

from rtdetr_slurm.engine.recipe import Recipe
from rtdetr_slurm.engine.training.schedule import lr_factor, set_learning_rate
from rtdetr_slurm.spec.train import OptimConfig

RTDETR = Recipe()


def by_epoch(cfg: OptimConfig, recipe: Recipe, epochs: int) -> list[float]:
    """The factors of epochs whose first 100 steps are done."""
    return [lr_factor(cfg, recipe, epoch, epoch * 200 + 100, 200) for epoch in range(epochs)]


def by_step(
    cfg: OptimConfig, recipe: Recipe, steps: int, steps_per_epoch: int = 100
) -> list[float]:
    return [lr_factor(cfg, recipe, 0, step, steps_per_epoch) for step in range(steps)]


def test_multi_step() -> None:
    cfg = OptimConfig(lr_steps=[3, 5], lr_decay=0.1)
    assert by_epoch(cfg, RTDETR, 7) == pytest.approx([1, 1, 1, 0.1, 0.1, 0.01, 0.01])


def test_step_lr() -> None:
    cfg = OptimConfig(lr_scheduler="StepLR", lr_step_size=2, lr_decay=0.5)
    assert by_epoch(cfg, RTDETR, 6) == [1, 1, 0.5, 0.5, 0.25, 0.25]


def test_warm_up_is_linear_in_steps() -> None:
    cfg = OptimConfig(warmup_steps=4, lr_steps=[1])
    assert by_step(cfg, RTDETR, 6) == [0.25, 0.5, 0.75, 1, 1, 1]
    assert lr_factor(cfg, RTDETR, 1, 1, 100) == pytest.approx(0.05)  # both at once


def test_recipes_have_a_warm_up_of_their_own() -> None:
    v2, deim = Recipe("rtdetrv2", 72), Recipe("deim", 120)
    assert by_step(OptimConfig(), v2, 6, 4) == [0.25, 0.5, 0.75, 1, 1, 1]
    assert by_step(OptimConfig(), deim, 5, 4) == [1 / 16, 1 / 4, 9 / 16, 1, 1]
    assert lr_factor(OptimConfig(), v2, 0, 999, 7330) == 0.5  # as published, over 2000 steps
    assert by_step(OptimConfig(warmup_steps=2), v2, 3, 4) == [0.5, 1, 1]
    assert by_step(OptimConfig(), RTDETR, 2, 4) == [1, 1]


def test_deim_is_flat_and_then_falls_along_a_cosine() -> None:
    factors = by_epoch(OptimConfig(warmup_steps=1), Recipe("deim", 120), 120)
    assert factors[:65] == [1.0] * 65
    fall = [0.75 + 0.25 * math.cos(math.pi * (e - 64) / (117 - 64)) for e in range(64, 117)]
    assert factors[64:117] == pytest.approx(fall)
    assert factors[117:] == [0.5] * 3


@pytest.mark.parametrize("epochs", range(1, 9))
def test_deim_in_short(epochs: int) -> None:
    factors = by_epoch(OptimConfig(warmup_steps=1), Recipe("deim", epochs), epochs)
    assert factors == sorted(factors, reverse=True)
    assert factors[-1] == 0.5


def test_applies_to_every_group() -> None:
    groups = [{"params": [torch.zeros(1)], "lr": rate, "base_lr": rate} for rate in (1e-5, 1e-3)]
    optimizer = torch.optim.AdamW(groups)
    assert set_learning_rate(optimizer, 0.5) == 5e-4
    set_learning_rate(optimizer, 0.1)  # of the full rate, not of the last one
    assert [group["lr"] for group in optimizer.param_groups] == pytest.approx([1e-6, 1e-4])
