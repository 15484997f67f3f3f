"""What TAO puts behind a backbone's stages: a layer for each level that is returned."""

from __future__ import annotations

from collections.abc import Sequence

from torch import nn

from rtdetr_slurm.spec.backbones import CONV_WIDTHS, LevelLayer


def level_layers(kind: LevelLayer, stages: Sequence[int], channels: Sequence[int]) -> nn.ModuleDict:
    """Stage to its layer.

    Args:
        kind: `norm`, a layer norm over the channels; `conv`, a 3x3 convolution to 512, 1024 and
            2048 channels on the three levels.
        channels: of each of the stages.
    """
    from timm.layers.norm import LayerNorm2d  # takes seconds to import

    layers = nn.ModuleDict()
    for level, (stage, width) in enumerate(zip(stages, channels, strict=True)):
        if kind == "norm":
            layers[str(stage)] = LayerNorm2d(width, eps=1e-5)
        else:
            conv = nn.Conv2d(width, CONV_WIDTHS[level], 3, padding=1)
            nn.init.trunc_normal_(conv.weight, std=0.02)
            assert conv.bias is not None
            nn.init.zeros_(conv.bias)
            layers[str(stage)] = conv
    return layers
