"""ResNet-vd backbones of RT-DETR: 18, 34, 50 and 101 layers.

The "d" variant of He et al. 2018 (arXiv:1812.01187): a stem of three 3x3 convolutions, and average
pooling before the 1x1 convolution of a striding shortcut. The first block of every stage has a
projection shortcut, also where the width does not change. Module names are those of the published
RT-DETR weights.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence

import torch.nn.functional as F
from torch import Tensor, nn

from rtdetr_slurm.engine.models.activation_checkpoint import run
from rtdetr_slurm.engine.models.functions import max_pool, scaled_convs
from rtdetr_slurm.engine.models.layers import ConvNorm

STAGE_DEPTHS = {18: (2, 2, 2, 2), 34: (3, 4, 6, 3), 50: (3, 4, 6, 3), 101: (3, 4, 23, 3)}
STAGE_WIDTHS = (64, 128, 256, 512)
STAGE_STRIDES = (4, 8, 16, 32)


def _shortcut(in_channels: int, out_channels: int, stride: int) -> nn.Module:
    if stride == 1:
        return ConvNorm(in_channels, out_channels, 1)
    # The input is a multiple of 32 pixels, so the pooled sizes are even: no ceil_mode needed.
    return PooledShortcut(
        OrderedDict(pool=nn.AvgPool2d(2, 2), conv=ConvNorm(in_channels, out_channels, 1))
    )


class PooledShortcut(nn.Sequential):
    """Average pooling and a 1x1 convolution.

    Attributes:
        in_parts: as ConvNorm's.
    """

    in_parts = False

    def forward(self, x: Tensor) -> Tensor:
        conv = self.get_submodule("conv")
        assert isinstance(conv, ConvNorm)
        scaled = None if self.in_parts else conv.scaled()
        if scaled is not None:
            return scaled_convs(x, scaled, pooled=True)
        out: Tensor = conv(self.get_submodule("pool")(x))
        return out


class BasicBlock(nn.Module):
    """Two 3x3 convolutions and a shortcut."""

    expansion = 1

    def __init__(self, in_channels: int, width: int, stride: int, first: bool) -> None:
        super().__init__()
        self.branch2a = ConvNorm(in_channels, width, 3, stride, nn.ReLU(inplace=True))
        self.branch2b = ConvNorm(width, width, 3)
        self.short = _shortcut(in_channels, width, stride) if first else nn.Identity()
        self.act = nn.ReLU(inplace=True)

    def forward(self, x: Tensor) -> Tensor:
        y = self.branch2b(self.branch2a(x))
        y += self.short(x)
        out: Tensor = self.act(y)
        return out


class Bottleneck(nn.Module):
    """1x1, 3x3 (the one that strides), 1x1 convolutions and a shortcut.

    Attributes:
        in_parts: as ConvNorm's.
    """

    expansion = 4
    in_parts = False

    def __init__(self, in_channels: int, width: int, stride: int, first: bool) -> None:
        super().__init__()
        out_channels = width * self.expansion
        self.branch2a = ConvNorm(in_channels, width, 1, 1, nn.ReLU(inplace=True))
        self.branch2b = ConvNorm(width, width, 3, stride, nn.ReLU(inplace=True))
        self.branch2c = ConvNorm(width, out_channels, 1)
        self.short = _shortcut(in_channels, out_channels, stride) if first else nn.Identity()
        self.act = nn.ReLU(inplace=True)

    def forward(self, x: Tensor) -> Tensor:
        y = self.branch2c(self._narrow(x))
        y += self.short(x)
        out: Tensor = self.act(y)
        return out

    def _narrow(self, x: Tensor) -> Tensor:
        """The first two convolutions; what is between them costs little to compute again."""
        first, second = self.branch2a.scaled(), self.branch2b.scaled()
        narrow: Tensor
        if self.in_parts or first is None or second is None:
            narrow = self.branch2b(self.branch2a(x))
        else:
            narrow = self.branch2b.act(scaled_convs(x, first, second))
        return narrow


class Stage(nn.Module):
    """The blocks of one resolution; the first one strides and widens."""

    def __init__(
        self,
        block: type[BasicBlock] | type[Bottleneck],
        in_channels: int,
        width: int,
        depth: int,
        stride: int,
    ) -> None:
        super().__init__()
        out_channels = width * block.expansion
        self.blocks = nn.ModuleList([block(in_channels, width, stride, first=True)])
        self.blocks.extend(
            block(out_channels, width, stride=1, first=False) for _ in range(depth - 1)
        )

    def forward(self, x: Tensor) -> Tensor:
        for block in self.blocks:
            x = block(x)
        return x


class ResNetVd(nn.Module):
    """ResNet-vd feature extractor.

    Args:
        depth: 18, 34, 50 or 101.
        return_indices: which of the four stages (0..3, strides 4..32) to return, ascending; stages
            after the last one are not built.
        activation_checkpoint: recompute the stages in the backward pass.
    """

    def __init__(
        self, depth: int, return_indices: Sequence[int], activation_checkpoint: bool = False
    ) -> None:
        super().__init__()
        block = BasicBlock if depth < 50 else Bottleneck
        self.return_indices = tuple(return_indices)
        self.activation_checkpoint = activation_checkpoint
        self.channels = [STAGE_WIDTHS[i] * block.expansion for i in return_indices]
        self.strides = [STAGE_STRIDES[i] for i in return_indices]

        self.conv1 = nn.Sequential(
            OrderedDict(
                conv1_1=ConvNorm(3, 32, 3, 2, nn.ReLU(inplace=True)),
                conv1_2=ConvNorm(32, 32, 3, 1, nn.ReLU(inplace=True)),
                conv1_3=ConvNorm(32, 64, 3, 1),
            )
        )
        self.res_layers = nn.ModuleList()
        in_channels = 64
        for index in range(max(return_indices) + 1):
            width, blocks = STAGE_WIDTHS[index], STAGE_DEPTHS[depth][index]
            stride = 1 if index == 0 else 2
            self.res_layers.append(Stage(block, in_channels, width, blocks, stride))
            in_channels = width * block.expansion

    def stem(self) -> list[nn.Module]:
        """The modules before the first stage."""
        return [self.conv1]

    def forward(self, images: Tensor) -> list[Tensor]:
        """[B, 3, H, W] to one map [B, channels[i], H/strides[i], W/strides[i]] per level."""
        # ReLU commutes with the maximum, and has a quarter of the work after it.
        x = F.relu(max_pool(self.conv1(images)), inplace=True)
        maps = []
        for index, stage in enumerate(self.res_layers):
            x = run(stage, x, again=self.activation_checkpoint)
            if index in self.return_indices:
                maps.append(x)
        return maps
