"""Backbones of timm, cut into their stages."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from torch import Tensor, nn

from rtdetr_slurm.engine.models.activation_checkpoint import run
from rtdetr_slurm.engine.models.levels import level_layers
from rtdetr_slurm.spec.backbones import CONV_WIDTHS, LevelLayer

STAGES = 4


class TimmBackbone(nn.Module):
    """A network of timm's as a pyramid of maps; module names are those of timm's features_only.

    Args:
        features: what `timm.create_model(..., features_only=True)` returns for the last four
            features or some of them.
        return_indices: which of the four stages (0..3, strides 4..32) these are, ascending.
        level_layer: what follows each of them.
        activation_checkpoint: recompute the stages in the backward pass.
    """

    def __init__(
        self,
        features: nn.Module,
        return_indices: Sequence[int],
        level_layer: LevelLayer | None = None,
        activation_checkpoint: bool = False,
    ) -> None:
        super().__init__()
        info: Any = features.feature_info
        self.channels: list[int] = info.channels()
        self.strides: list[int] = info.reduction()
        self.activation_checkpoint = activation_checkpoint
        ends = [str(feature["module"]).replace(".", "_") for feature in info.info]
        # The stages are the last four features; a ResNet's first one is its stem's output.
        self.stage_of = {name: stage for stage, name in enumerate(ends[-STAGES:])}
        self.returned = frozenset(return_indices)
        self.body = [name for name, _ in features.named_children()]
        for name, child in features.named_children():
            self.add_module(name, child)
        self.levels: nn.ModuleDict | None = None
        if level_layer is not None:
            self.levels = level_layers(level_layer, return_indices, self.channels)
        if level_layer == "conv":
            self.channels = list(CONV_WIDTHS[: len(return_indices)])
        for module in self.modules():
            if hasattr(module, "inplace"):  # would overwrite what the backward pass needs
                vars(module)["inplace"] = False

    def stem(self) -> list[nn.Module]:
        """The modules before the first stage."""
        first = next(index for index, name in enumerate(self.body) if name in self.stage_of)
        return [self.get_submodule(name) for name in self.body[:first]]

    def forward(self, images: Tensor) -> list[Tensor]:
        """[B, 3, H, W] to one map [B, channels[i], H/strides[i], W/strides[i]] per level."""
        x = images
        maps = []
        for name in self.body:
            module, stage = self.get_submodule(name), self.stage_of.get(name)
            x = run(module, x, again=self.activation_checkpoint and stage is not None)
            if stage in self.returned:
                maps.append(x if self.levels is None else self.levels[str(stage)](x))
        return maps
