"""EdgeNeXt with batch norm and hard swish, which timm does not have.

Maaz et al. 2022 (arXiv:2206.10589), the authors' `*_bn_hs` variants. The stages differ from timm's
in more than the kind of norm: it comes before the position code, and attention has none of its own.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from timm.layers.mlp import Mlp
from timm.models._features import FeatureListNet
from timm.models.edgenext import CrossCovarianceAttn
from torch import Tensor, nn

from rtdetr_slurm.engine.models.fourier import FREQUENCIES, FourierCode

DEPTHS = {"xx_small": (2, 2, 6, 2), "x_small": (3, 3, 9, 3), "small": (3, 3, 9, 3)}
WIDTHS = {
    "xx_small": (24, 48, 88, 168),
    "x_small": (32, 64, 100, 192),
    "small": (48, 96, 160, 304),
}
HEADS = {"xx_small": 4, "x_small": 4, "small": 8}
KERNELS = (3, 5, 7, 9)
SCALES = (None, 2, 3, 4)
"""Parts that a stage's last block, the attention, splits its channels into; None without one."""
LAYER_SCALE = 1e-6


def _mlp(width: int) -> Mlp:
    return Mlp(width, 4 * width, act_layer=nn.Hardswish)


class ConvBlock(nn.Module):
    """Depthwise convolution and feed-forward layer; [B, C, H, W] to the same."""

    def __init__(self, width: int, kernel_size: int) -> None:
        super().__init__()
        padding = kernel_size // 2
        self.conv_dw = nn.Conv2d(
            width, width, kernel_size, padding=padding, groups=width, bias=False
        )
        self.norm = nn.BatchNorm2d(width)
        self.mlp = _mlp(width)
        self.gamma = nn.Parameter(LAYER_SCALE * torch.ones(width))

    def forward(self, x: Tensor) -> Tensor:
        y = self.norm(self.conv_dw(x)).permute(0, 2, 3, 1)
        out: Tensor = x + (self.gamma * self.mlp(y)).permute(0, 3, 1, 2)
        return out


class SplitTransposeBlock(nn.Module):
    """Convolutions over parts of the channels, attention among channels, feed-forward layer."""

    def __init__(self, width: int, scales: int, heads: int, *, has_position: bool) -> None:
        super().__init__()
        part = math.ceil(width / scales)
        self.convs = nn.ModuleList(
            nn.Conv2d(part, part, 3, padding=1, groups=part) for _ in range(scales - 1)
        )
        self.pos_embd = FourierCode(nn.Conv2d(2 * FREQUENCIES, width, 1)) if has_position else None
        self.norm_xca = nn.BatchNorm2d(width)
        self.gamma_xca = nn.Parameter(LAYER_SCALE * torch.ones(width))
        self.xca = CrossCovarianceAttn(width, num_heads=heads, qkv_bias=True)
        self.norm = nn.BatchNorm2d(width)
        self.mlp = _mlp(width)
        self.gamma = nn.Parameter(LAYER_SCALE * torch.ones(width))

    def forward(self, x: Tensor) -> Tensor:
        y = self.norm_xca(self._mixed(x))
        if self.pos_embd is not None:
            y = y + self.pos_embd((1, *y.shape[2:]))
        cells = y.flatten(2).transpose(1, 2)
        cells = cells + self.gamma_xca * self.xca(cells)
        y = self.norm(cells.transpose(1, 2).unflatten(2, y.shape[2:])).permute(0, 2, 3, 1)
        out: Tensor = x + (self.gamma * self.mlp(y)).permute(0, 3, 1, 2)
        return out

    def _mixed(self, x: Tensor) -> Tensor:
        """Each part but the last is convolved together with the result of the one before."""
        *parts, last = x.chunk(len(self.convs) + 1, dim=1)
        done: list[Tensor] = []
        for part, conv in zip(parts, self.convs, strict=True):
            done.append(conv(part + done[-1] if done else part))
        return torch.cat([*done, last], dim=1)


class Stage(nn.Module):
    """The blocks of one resolution, after what halves it."""

    def __init__(self, name: str, index: int) -> None:
        super().__init__()
        width, depth, scales = WIDTHS[name][index], DEPTHS[name][index], SCALES[index]
        self.downsample: nn.Module = nn.Identity()
        if index:
            before = WIDTHS[name][index - 1]
            self.downsample = nn.Sequential(
                nn.BatchNorm2d(before), nn.Conv2d(before, width, 2, stride=2, bias=False)
            )
        convs = depth if scales is None else depth - 1
        self.blocks = nn.Sequential(*(ConvBlock(width, KERNELS[index]) for _ in range(convs)))
        if scales is not None:
            attention = SplitTransposeBlock(width, scales, HEADS[name], has_position=index == 1)
            self.blocks.append(attention)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.blocks(self.downsample(x))
        return out


class EdgeNeXtBnHs(nn.Module):
    """The stem and the stages, for timm's feature extraction.

    Args:
        name: xx_small, x_small or small.
    """

    def __init__(self, name: str) -> None:
        super().__init__()
        first = WIDTHS[name][0]
        self.stem = nn.Sequential(
            nn.Conv2d(3, first, 4, stride=4, bias=False), nn.BatchNorm2d(first)
        )
        self.stages = nn.Sequential(*(Stage(name, index) for index in range(4)))
        self.feature_info = [
            {"num_chs": width, "reduction": 4 * 2**index, "module": f"stages.{index}"}
            for index, width in enumerate(WIDTHS[name])
        ]
        self.apply(_init_weights)


def features_of(name: str, out_indices: Sequence[int]) -> nn.Module:
    """As `timm.create_model(..., features_only=True)` builds them."""
    features: nn.Module = FeatureListNet(
        EdgeNeXtBnHs(name), out_indices=tuple(out_indices), flatten_sequential=True
    )
    return features


def _init_weights(module: nn.Module) -> None:
    if isinstance(module, nn.Conv2d | nn.Linear):
        nn.init.trunc_normal_(module.weight, std=0.02)
        if module.bias is not None:
            nn.init.zeros_(module.bias)
