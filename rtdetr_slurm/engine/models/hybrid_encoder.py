"""The hybrid encoder: attention within the coarse maps, convolutions across the scales."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from rtdetr_slurm.engine.models.attention import SelfAttention
from rtdetr_slurm.engine.models.functions import norm_silu, normalizes, written_out
from rtdetr_slurm.engine.models.layers import ConvNorm, build_activation, fixed_sizes
from rtdetr_slurm.engine.models.positions import position_code


class RepVggBlock(nn.Module):
    """A 3x3 and a 1x1 convolution side by side; `fuse` makes them one 3x3 (conv2 is None then).

    Attributes:
        in_parts: as ConvNorm's.
    """

    in_parts = False

    def __init__(self, channels: int, act: str) -> None:
        super().__init__()
        self.conv1 = ConvNorm(channels, channels, 3)
        self.conv2: ConvNorm | None = ConvNorm(channels, channels, 1)
        self.act = build_activation(act)

    def forward(self, x: Tensor) -> Tensor:
        if self.conv2 is None:
            return self._activated(self.conv1(x))
        convs = (self.conv1, self.conv2)
        normal = all(normalizes(one.norm) for one in convs)
        plain = self.in_parts or not normal or not written_out()
        if plain or not isinstance(self.act, nn.SiLU):
            return self._activated(self.conv1(x) + self.conv2(x))
        return norm_silu(x, *((one.conv, one.norm) for one in convs))

    def _activated(self, x: Tensor) -> Tensor:
        out: Tensor = self.act(x)
        return out


class CSPRepLayer(nn.Module):
    """Two branches, one of them through RepVGG blocks, summed; [B, C, H, W] to [B, C', H, W]."""

    def __init__(
        self, in_channels: int, out_channels: int, num_blocks: int, expansion: float, act: str
    ) -> None:
        super().__init__()
        hidden = int(out_channels * expansion)
        self.conv1 = ConvNorm(in_channels, hidden, 1, act=build_activation(act))
        self.conv2 = ConvNorm(in_channels, hidden, 1, act=build_activation(act))
        self.bottlenecks = nn.Sequential(*(RepVggBlock(hidden, act) for _ in range(num_blocks)))
        self.conv3 = (
            nn.Identity()
            if hidden == out_channels
            else ConvNorm(hidden, out_channels, 1, act=build_activation(act))
        )

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.conv3(self.bottlenecks(self.conv1(x)) + self.conv2(x))
        return out


class EncoderLayer(nn.Module):
    """Post-norm transformer encoder layer on tokens [B, N, D]."""

    def __init__(self, dim: int, num_heads: int, ffn_dim: int, dropout: float, act: str) -> None:
        super().__init__()
        self.self_attn = SelfAttention(dim, num_heads, dropout)
        self.linear1 = nn.Linear(dim, ffn_dim)
        self.linear2 = nn.Linear(ffn_dim, dim)
        self.norm1 = nn.LayerNorm(dim)
        self.norm2 = nn.LayerNorm(dim)
        self.dropout = nn.Dropout(dropout)
        self.act = build_activation(act)

    def forward(self, x: Tensor, position: Tensor) -> Tensor:
        x = self.norm1(x + self.dropout(self.self_attn(x, position)))
        hidden = self.dropout(self.act(self.linear1(x)))
        out: Tensor = self.norm2(x + self.dropout(self.linear2(hidden)))
        return out


class AIFI(nn.Module):
    """Attention-based intra-scale feature interaction: encoder layers over the cells of one map;
    [B, D, H, W] to the same."""

    def __init__(
        self,
        dim: int,
        num_layers: int,
        num_heads: int,
        ffn_dim: int,
        dropout: float,
        act: str,
        temperature: float,
    ) -> None:
        super().__init__()
        self.temperature = temperature
        self.layers = nn.ModuleList(
            EncoderLayer(dim, num_heads, ffn_dim, dropout, act) for _ in range(num_layers)
        )

    def forward(self, x: Tensor) -> Tensor:
        dim, height, width = fixed_sizes(x)
        tokens = x.reshape(-1, dim, height * width).transpose(1, 2)
        position = position_code(height, width, dim, self.temperature, x.dtype, x.device)
        for layer in self.layers:
            tokens = layer(tokens, position)
        return tokens.transpose(1, 2).reshape(-1, dim, height, width)


class HybridEncoder(nn.Module):
    """Projects the backbone's maps to one width, then fuses them top-down and bottom-up.

    Args:
        in_channels: widths of the backbone's maps, fine to coarse; each half the size of the last.
        dim: width of all maps inside and out.
        use_encoder_idx: levels that pass through a transformer.
        enc_layers: transformer layers per such level.
        num_heads, ffn_dim, dropout, enc_act: of these layers.
        temperature: of their position code.
        expansion: hidden width of the CSP layers, as a share of `dim`.
        depth_mult: multiplies the three RepVGG blocks of a CSP layer.
        act: activation of the convolutions.
    """

    def __init__(
        self,
        in_channels: Sequence[int],
        dim: int,
        use_encoder_idx: Sequence[int],
        enc_layers: int,
        num_heads: int,
        ffn_dim: int,
        dropout: float,
        enc_act: str,
        temperature: float,
        expansion: float,
        depth_mult: float,
        act: str,
    ) -> None:
        super().__init__()
        self.use_encoder_idx = tuple(use_encoder_idx)
        self.input_proj = nn.ModuleList(ConvNorm(channels, dim, 1) for channels in in_channels)
        self.encoder = nn.ModuleList(
            AIFI(dim, enc_layers, num_heads, ffn_dim, dropout, enc_act, temperature)
            for _ in use_encoder_idx
        )
        blocks = round(3 * depth_mult)
        steps = range(len(in_channels) - 1)
        self.lateral_convs = nn.ModuleList(
            ConvNorm(dim, dim, 1, act=build_activation(act)) for _ in steps
        )
        self.fpn_blocks = nn.ModuleList(
            CSPRepLayer(2 * dim, dim, blocks, expansion, act) for _ in steps
        )
        self.downsample_convs = nn.ModuleList(
            ConvNorm(dim, dim, 3, 2, build_activation(act)) for _ in steps
        )
        self.pan_blocks = nn.ModuleList(
            CSPRepLayer(2 * dim, dim, blocks, expansion, act) for _ in steps
        )

    def forward(self, features: list[Tensor]) -> list[Tensor]:
        """Backbone maps, fine to coarse, to maps [B, dim, H_l, W_l] of the same sizes."""
        maps = [proj(x) for proj, x in zip(self.input_proj, features, strict=True)]
        for transformer, level in zip(self.encoder, self.use_encoder_idx, strict=True):
            maps[level] = transformer(maps[level])

        # Top-down. What goes up is the lateral convolution's output, which the way down uses again.
        inner = [maps[-1]]
        for low, lateral, block in zip(
            reversed(maps[:-1]), self.lateral_convs, self.fpn_blocks, strict=True
        ):
            high = lateral(inner[0])
            up = F.interpolate(high, scale_factor=2.0, mode="nearest")
            inner = [block(torch.cat([up, low], dim=1)), high, *inner[1:]]

        # Bottom-up.
        out = [inner[0]]
        for high, downsample, block in zip(
            inner[1:], self.downsample_convs, self.pan_blocks, strict=True
        ):
            out.append(block(torch.cat([downsample(out[-1]), high], dim=1)))
        return out
