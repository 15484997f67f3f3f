"""What the tests of model, losses and key map share: a small model and small batches."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from rtdetr_slurm.engine.losses import build_criterion
from rtdetr_slurm.engine.models import RTDETR, Outputs, build_model
from rtdetr_slurm.spec.model import ModelConfig
from rtdetr_slurm.vision.samples import Target

NUM_CLASSES = 5
SMALLEST = (
    *("resnet_18", "resnet_50", "resnet_18_vd", "resnet_50_vd"),
    *("convnext_tiny", "convnextv2_atto", "efficientvit_b0", "efficientvit_l0"),
    *("edgenext_x_small", "edgenext_xx_small_bn_hs", "fan_tiny"),
)
"""The least of every kind of backbone."""
SMALL: dict[str, Any] = {
    "backbone": "resnet_18_vd",
    "hidden_dim": 32,
    "feat_channels": [32, 32, 32],
    "dim_feedforward": 48,
    "dec_layers": 3,
    "num_queries": 12,
    "num_select": 12,
    "expansion": 0.5,
    "dn_number": 8,
}


def small_config(**changes: Any) -> ModelConfig:
    return ModelConfig.model_validate(SMALL | changes)


def small_model(seed: int = 0, *, freeze_norm: bool = False, **changes: Any) -> RTDETR:
    torch.manual_seed(seed)
    return build_model(small_config(**changes), NUM_CLASSES, freeze_norm=freeze_norm)


def images(batch: int = 2, height: int = 64, width: int = 96) -> Tensor:
    return torch.rand(batch, 3, height, width, generator=torch.Generator().manual_seed(1))


def targets(*counts: int) -> list[Target]:
    generator = torch.Generator().manual_seed(2)
    batch: list[Target] = []
    for count in counts:
        centres = torch.rand(count, 2, generator=generator) * 0.6 + 0.2
        sizes = torch.rand(count, 2, generator=generator) * 0.3 + 0.05
        labels = torch.randint(NUM_CLASSES, (count,), generator=generator)
        batch.append({"labels": labels, "boxes": torch.cat([centres, sizes], dim=1)})
    return batch


def step(model: RTDETR, batch: list[Target], cfg: ModelConfig) -> tuple[Outputs, dict[str, Tensor]]:
    """Forward, loss and backward in training mode, with the same denoising noise every time."""
    torch.manual_seed(7)
    outputs = model.train()(images(len(batch)), batch)
    terms = build_criterion(cfg)(outputs, batch, torch.tensor(4.0))
    torch.stack(list(terms.values())).sum().backward()
    return outputs, terms


def without_gradient(model: RTDETR) -> list[str]:
    return [
        name
        for name, parameter in model.named_parameters()
        if parameter.requires_grad and parameter.grad is None
    ]
