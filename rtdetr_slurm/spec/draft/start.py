"""What training begins with, and on how many GPUs, as far as the choices go."""

from __future__ import annotations

from typing import Literal

from rtdetr_slurm.spec.draft.choices import Choices
from rtdetr_slurm.spec.draft.facts import Hardware

Start = Literal["detector", "backbone", "nothing"]
"""Whose pretrained weights there are."""

SIZE = "dataset.augmentation.train_spatial_size"
DETECTOR, _BACKBONE = "train.pretrained_model_path", "model.pretrained_backbone_path"
_BACKBONES = (
    *("resnet_50_vd", "resnet_50", "resnet_101_vd", "resnet_101"),
    *("resnet_34_vd", "resnet_34", "resnet_18_vd", "resnet_18"),
)
"""In the order in which those with weights are taken."""


def start_of(choices: Choices, hardware: Hardware) -> tuple[Start, str | None]:
    """What training begins with, a detector, a backbone or nothing; and the backbone of weights
    that the site has, and nobody has named."""
    if choices.is_given(DETECTOR):
        return "detector", None
    if choices.is_given(_BACKBONE):
        return "backbone", None
    names = [choices.value("model.backbone")] if choices.is_given("model.backbone") else _BACKBONES
    kinds: dict[str, Start] = {"rtdetr_": "detector", "": "backbone"}
    for prefix, kind in kinds.items():
        for name in names:
            if hardware.models.get(prefix + name):
                return kind, name
    return "nothing", None


def ranks_of(choices: Choices) -> int:
    """GPUs of all nodes."""
    return int(choices.value("train.num_nodes") * choices.value("train.num_gpus"))
