"""Backbones by name, and what may be frozen in them."""

from __future__ import annotations

from collections.abc import Sequence

from torch import nn

from rtdetr_slurm.engine.models.layers import freeze_batch_norm
from rtdetr_slurm.engine.models.resnet_vd import ResNetVd
from rtdetr_slurm.engine.models.timm_backbone import TimmBackbone

Backbone = ResNetVd | TimmBackbone

VD_DEPTHS = {"resnet_18_vd": 18, "resnet_34_vd": 34, "resnet_50_vd": 50, "resnet_101_vd": 101}
TIMM_NAMES = {
    "resnet_18": "resnet18",
    "resnet_34": "resnet34",
    "resnet_50": "resnet50",
    "resnet_101": "resnet101",
}


def build_backbone(
    name: str,
    return_indices: Sequence[int],
    *,
    train: bool = True,
    freeze_norm: bool = False,
    freeze_stem: bool = False,
    activation_checkpoint: bool = False,
) -> Backbone:
    """Build the backbone that `model.backbone` names.

    Args:
        name: a key of VD_DEPTHS or TIMM_NAMES.
        return_indices: stages to return, 0..3.
        train: False freezes every parameter and every batch norm statistic.
        freeze_norm: batch norms become constants, with their affine parameters.
        freeze_stem: the layers before the first stage become constants.
        activation_checkpoint: recompute the stages in the backward pass to save memory.
    """
    backbone: Backbone
    if name in VD_DEPTHS:
        backbone = ResNetVd(VD_DEPTHS[name], return_indices, activation_checkpoint)
    else:
        backbone = TimmBackbone(TIMM_NAMES[name], return_indices, activation_checkpoint)
    if freeze_norm or not train:
        freeze_batch_norm(backbone)
    if not train:
        backbone.requires_grad_(False)
    if freeze_stem:
        _freeze_stem(backbone)
    return backbone


def _freeze_stem(backbone: Backbone) -> None:
    before_stages: list[nn.Module] = backbone.stem()
    stem = nn.ModuleList(before_stages)
    # The norms are children of the stem's modules (vd) or of the backbone itself (plain).
    freeze_batch_norm(stem)
    for name, child in list(backbone.named_children()):
        if child in before_stages:
            setattr(backbone, name, stem[before_stages.index(child)])
    stem.requires_grad_(False)
