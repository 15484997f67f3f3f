"""The objective of training."""

from __future__ import annotations

import torch
from model_support import images, small_config, small_model, step, targets

from rtdetr_slurm.engine.losses import build_criterion
from rtdetr_slurm.engine.training.objective import DetectionObjective


def test_is_forward_and_criterion() -> None:
    batch, cfg = targets(3, 1), small_config()
    _, expected = step(small_model(), batch, cfg)
    objective = DetectionObjective(small_model(), build_criterion(cfg), "fp32").train()
    torch.manual_seed(7)
    loss, terms = objective(images(), batch, torch.tensor(4.0))
    assert terms == expected
    assert loss == torch.stack(list(expected.values())).sum()


def test_half_precision_is_for_the_network_alone() -> None:
    objective = DetectionObjective(small_model(), build_criterion(small_config()), "bf16").train()
    loss, terms = objective(images(), targets(3, 1), torch.tensor(4.0))
    assert {term.dtype for term in (loss, *terms.values())} == {torch.float32}
    full = DetectionObjective(small_model(), build_criterion(small_config()), "fp32").train()
    assert loss != full(images(), targets(3, 1), torch.tensor(4.0))[0]
