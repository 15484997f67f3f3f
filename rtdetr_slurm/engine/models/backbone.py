"""Backbones by name, and what may be frozen in them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Union

from torch import nn

from rtdetr_slurm.engine.models.fourier import FourierCode
from rtdetr_slurm.engine.models.layers import freeze_batch_norm
from rtdetr_slurm.engine.models.resnet_vd import ResNetVd
from rtdetr_slurm.engine.models.timm_backbone import STAGES, TimmBackbone
from rtdetr_slurm.installed import without
from rtdetr_slurm.spec.backbones import family, level_layer

if TYPE_CHECKING:
    from rtdetr_slurm.engine.models.fan import FAN

Backbone = Union[ResNetVd, TimmBackbone, "FAN"]

VD_DEPTHS = {"resnet_18_vd": 18, "resnet_34_vd": 34, "resnet_50_vd": 50, "resnet_101_vd": 101}
TIMM_NAMES = {f"resnet_{depth}": f"resnet{depth}" for depth in (18, 34, 50, 101)}
"""Names here → timm's, where they differ."""
TIMM_ARGUMENTS: Mapping[str, tuple[str, Mapping[str, Any]]] = {
    "efficientvit_l0": ("efficientvit_l1", {"depths": (1, 1, 1, 4, 4)}),
}
"""Backbones that timm does not have → one that it has, and what differs."""


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
        name: one that the spec allows.
        return_indices: stages to return, 0..3, ascending.
        train: False freezes every parameter and every batch norm statistic, and leaves nothing to
            chance.
        freeze_norm: batch norms become constants, with their affine parameters.
        freeze_stem: the layers before the first stage become constants.
        activation_checkpoint: recompute the stages in the backward pass to save memory.
    """
    backbone = _build(name, return_indices, activation_checkpoint)
    if freeze_norm or not train:
        freeze_batch_norm(backbone)
    if not train:
        backbone.requires_grad_(False)
        for module in backbone.modules():
            if hasattr(module, "drop_prob"):
                vars(module)["drop_prob"] = 0.0
    if freeze_stem:
        _freeze_stem(backbone)
    return backbone


def _build(name: str, return_indices: Sequence[int], activation_checkpoint: bool) -> Backbone:
    if name in VD_DEPTHS:
        return ResNetVd(VD_DEPTHS[name], return_indices, activation_checkpoint)
    with without("wandb"):  # timm imports it wherever it is installed
        import timm  # noqa: F401  (takes seconds, and a ResNet-vd needs none of it)
    if family(name) == "fan":
        from rtdetr_slurm.engine.models.fan import FAN

        return FAN(name.split("_")[1], return_indices, activation_checkpoint)
    features = _timm_features(name, [stage - STAGES for stage in return_indices])
    return TimmBackbone(features, return_indices, level_layer(name), activation_checkpoint)


def _timm_features(name: str, out_indices: Sequence[int]) -> nn.Module:
    """timm's network as an extractor of features; the last four are its stages."""
    if name.endswith("_bn_hs"):
        from rtdetr_slurm.engine.models.edgenext_bn_hs import features_of

        return features_of(name.removeprefix("edgenext_").removesuffix("_bn_hs"), out_indices)
    import timm

    timm_name, arguments = TIMM_ARGUMENTS.get(name, (TIMM_NAMES.get(name, name), {}))
    features: nn.Module = timm.create_model(
        timm_name, pretrained=False, features_only=True, out_indices=out_indices, **arguments
    )
    for module in features.modules():
        if (code := getattr(module, "pos_embd", None)) is not None:  # EdgeNeXt's
            module.pos_embd = FourierCode(code.token_projection)
    return features


def _freeze_stem(backbone: Backbone) -> None:
    before_stages: list[nn.Module] = backbone.stem()
    stem = nn.ModuleList(before_stages)
    # The norms are children of the stem's modules (vd) or of the backbone itself (plain).
    freeze_batch_norm(stem)
    for name, child in list(backbone.named_children()):
        if child in before_stages:
            setattr(backbone, name, stem[before_stages.index(child)])
    stem.requires_grad_(False)
