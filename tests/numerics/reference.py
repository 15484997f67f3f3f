"""Hugging Face transformers' RT-DETR as the reference: models, weights and batches for the tests.

Freshly initialised models are a weak fixture (batch norm weights near 0, zero offsets and box
heads: the output hardly depends on the input), so all weights are drawn again. All is float64,
where a difference is an error and not a near-tie among the selected queries.
"""

from __future__ import annotations

import math
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from transformers import (
    RTDetrConfig,
    RTDetrForObjectDetection,
    RTDetrResNetConfig,
    RTDetrV2Config,
    RTDetrV2ForObjectDetection,
)

from rtdetr_slurm.engine.models import RTDETR, build_model
from rtdetr_slurm.engine.models.keymap import own_names
from rtdetr_slurm.spec.model import ModelConfig
from rtdetr_slurm.vision.samples import Target

NUM_CLASSES = 80
STAGES = ["stage2", "stage3", "stage4"]


def our_config(depth: int, **changes: Any) -> ModelConfig:
    small = {"expansion": 0.5, "dec_layers": 3} if depth == 18 else {}
    return ModelConfig.model_validate({"backbone": f"resnet_{depth}_vd", **small, **changes})


def their_model(depth: int, freeze_norm: bool, *, second: bool = False) -> Any:
    """Randomised, float64; the second version where asked for.

    Attention is the eager one: the float32 mask that transformers builds is misread by PyTorch's
    fused attention when the queries are float64.
    """
    if depth == 18:
        backbone = RTDetrResNetConfig(
            hidden_sizes=[64, 128, 256, 512],
            depths=[2, 2, 2, 2],
            layer_type="basic",
            out_features=STAGES,
        )
        sizes = {"encoder_in_channels": [128, 256, 512], "hidden_expansion": 0.5}
        layers = {"decoder_layers": 3}
    else:
        backbone = RTDetrResNetConfig(depths=[3, 4, 6, 3], out_features=STAGES)
        sizes, layers = {}, {}
    kinds = (RTDetrV2Config, RTDetrV2ForObjectDetection)
    make_config, make_model = kinds if second else (RTDetrConfig, RTDetrForObjectDetection)
    config = make_config(
        backbone_config=backbone,
        num_labels=NUM_CLASSES,
        freeze_backbone_batch_norms=freeze_norm,
        attn_implementation="eager",
        **sizes,
        **layers,
    )
    model = make_model(config).double()
    randomise(model)
    return model


@torch.no_grad()
def randomise(model: nn.Module, seed: int = 5) -> None:
    generator = torch.Generator().manual_seed(seed)
    for name, value in [*model.named_parameters(), *model.named_buffers()]:
        if not value.is_floating_point() or name.endswith("points_scale"):
            continue  # counters and constants
        if name.endswith("running_var"):
            value.uniform_(0.5, 1.5, generator=generator)
        elif name.endswith(("running_mean", "bias")):
            value.normal_(0, 0.1, generator=generator)
        elif value.dim() == 1:
            value.uniform_(0.5, 1.2, generator=generator)
        else:
            value.normal_(0, 1 / math.sqrt(value[0].numel()), generator=generator)


def our_model(theirs: nn.Module, depth: int, freeze_norm: bool, **changes: Any) -> RTDETR:
    """Our model with their weights."""
    ours = build_model(our_config(depth, **changes), NUM_CLASSES, freeze_norm=freeze_norm).double()
    _, state = own_names(theirs.state_dict())
    ours.load_state_dict(state)
    return ours


def images(batch: int, height: int, width: int) -> Tensor:
    """Random blotches: noise of single pixels would average out and make all queries alike."""
    generator = torch.Generator().manual_seed(2)
    coarse = torch.rand(batch, 3, height // 32, width // 32, generator=generator)
    return F.interpolate(coarse.double(), size=(height, width), mode="bicubic").clamp(0, 1)


def targets(*counts: int) -> list[Target]:
    generator = torch.Generator().manual_seed(3)
    batch: list[Target] = []
    for count in counts:
        labels = torch.randint(NUM_CLASSES, (count,), generator=generator)
        centres = torch.rand(count, 2, generator=generator, dtype=torch.float64) * 0.5 + 0.25
        sizes = torch.rand(count, 2, generator=generator, dtype=torch.float64) * 0.3 + 0.05
        batch.append({"labels": labels, "boxes": torch.cat([centres, sizes], dim=1)})
    return batch


def their_labels(batch: list[Target]) -> list[dict[str, Tensor]]:
    return [{"class_labels": t["labels"], "boxes": t["boxes"]} for t in batch]
