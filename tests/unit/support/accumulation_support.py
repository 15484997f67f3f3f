"""A detector and a batch of which the gradients of several micro-batches must be those of one."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypeVar

import torch
from model_support import images, small_config, small_model, targets
from torch import Tensor, nn

from rtdetr_slurm.engine.losses import build_criterion
from rtdetr_slurm.engine.training.accumulation import Gradients, StepLoss
from rtdetr_slurm.engine.training.objective import DetectionObjective
from rtdetr_slurm.engine.training.state import TrainingState
from rtdetr_slurm.vision.samples import Target

Objective = TypeVar("Objective", bound=DetectionObjective)
BOXES = (3, 0, 1, 2)
"""Of the four images."""


def batch() -> tuple[Tensor, list[Target]]:
    wanted = [Target(labels=one["labels"], boxes=one["boxes"].double()) for one in targets(*BOXES)]
    return images(4).double(), wanted


def detection() -> DetectionObjective:
    """In float64, with fixed norms and without denoising, which goes by a batch as a whole."""
    model = small_model(freeze_norm=True, dn_number=0)
    return with_fixed_norms(
        DetectionObjective(model, build_criterion(small_config()), "fp32").double()
    )


def with_fixed_norms(objective: Objective) -> Objective:
    for module in objective.train().modules():
        if isinstance(module, nn.modules.batchnorm._NormBase):
            module.eval()
    return objective


def state_of(objective: DetectionObjective, wrapped: nn.Module | None = None) -> TrainingState:
    optimizer = torch.optim.SGD(objective.parameters(), lr=0.1)
    return TrainingState(
        model=objective.detector,
        objective=wrapped or objective,
        auxiliary=objective.auxiliary,
        frozen_norms=[],
        plain_norms=[],
        optimizer=optimizer,
        ema=None,
        scaler=None,
        seed=0,
    )


def step_in_parts(
    state: TrainingState, parts: int, pixels: Tensor, wanted: Sequence[Target], boxes: float
) -> tuple[StepLoss, dict[str, Tensor]]:
    """Loss and gradients of a step.

    Images are laid out as training has them. In another layout torch's batch norm on CPU has wrong
    gradients for a batch of one, where they come from a transposed map.
    """
    pixels = pixels.contiguous(memory_format=torch.channels_last)
    gradients = Gradients(state, parts, torch.tensor(boxes).double(), torch.tensor(7.0).double())
    size = len(pixels) // parts
    for start in range(0, len(pixels), size):
        gradients.add(pixels[start : start + size], wanted[start : start + size])
    beside, loss = gradients.read()
    assert beside == 7
    found = {n: p.grad for n, p in state.model.named_parameters() if p.grad is not None}
    return loss, {name: grad.clone() for name, grad in found.items()}
