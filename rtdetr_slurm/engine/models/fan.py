"""FAN hybrid backbones: a fully attentional network on the first stages of a ConvNeXt.

Zhou et al. 2022 (arXiv:2204.12451), in the form that detection uses: maps of stride 4 and 8 from
the ConvNeXt, 16 from the tokens, 32 from a strided convolution over them. Module names are those of
NVlabs' FAN, and `levels` beside them. What serves its class token alone is left out: that token
takes from the cells, and gives them nothing.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial

import torch
import torch.nn.functional as F
from timm.layers.drop import DropPath
from timm.layers.norm import LayerNorm2d
from timm.models.convnext import ConvNeXtStage
from torch import Tensor, nn

from rtdetr_slurm.engine.models.activation_checkpoint import run
from rtdetr_slurm.engine.models.fourier import FREQUENCIES, FourierCode
from rtdetr_slurm.engine.models.layers import fixed_sizes
from rtdetr_slurm.engine.models.levels import level_layers
from rtdetr_slurm.spec.backbones import LAST

STEM_WIDTHS = (128, 256)
LAST_WIDTH = 768
STRIDES = (4, 8, 16, 32)
DROP_PATH = 0.3
"""Share of residual branches that training leaves out, as NVlabs' and TAO's detectors do."""
_token_norm = partial(nn.LayerNorm, eps=1e-6)


@dataclass(frozen=True)
class Size:
    """One member of the family.

    Attributes:
        stem_depths: blocks of the two ConvNeXt stages.
        read_after: the block whose output is the map of stride 16, from 0.
    """

    width: int
    depth: int
    heads: int
    stem_depths: tuple[int, int]
    read_after: int


SIZES = {
    "tiny": Size(192, 8, 8, (3, 3), 7),
    "small": Size(384, 10, 8, (3, 3), 9),
    "base": Size(448, 16, 8, (3, 3), 15),
    "large": Size(480, 22, 10, (3, 5), 18),
}


class ConvStem(nn.Module):
    """The first stages of a ConvNeXt: [B, 3, H, W] to maps of stride 4 and 8."""

    def __init__(self, depths: Sequence[int], activation_checkpoint: bool) -> None:
        super().__init__()
        self.activation_checkpoint = activation_checkpoint
        first = STEM_WIDTHS[0]
        self.stem = nn.Sequential(nn.Conv2d(3, first, 4, stride=4), LayerNorm2d(first))
        widths = (first, *STEM_WIDTHS)
        self.stages = nn.ModuleList(
            ConvNeXtStage(
                widths[stage],
                widths[stage + 1],
                stride=1 if stage == 0 else 2,
                depth=depth,
                ls_init_value=1e-6,
                conv_mlp=True,
                norm_layer=LayerNorm2d,
            )
            for stage, depth in enumerate(depths)
        )

    def forward(self, images: Tensor) -> list[Tensor]:
        x = self.stem(images)
        maps = []
        for stage in self.stages:
            x = run(stage, x, again=self.activation_checkpoint)
            maps.append(x)
        return maps


class PatchEmbed(nn.Module):
    """The stem, and what makes tokens of its last map: [B, 3, H, W] to the stem's maps, and that of
    the tokens, where there are any."""

    def __init__(
        self, depths: Sequence[int], width: int | None, activation_checkpoint: bool
    ) -> None:
        super().__init__()
        self.backbone = ConvStem(depths, activation_checkpoint)
        self.proj = None if width is None else nn.Conv2d(STEM_WIDTHS[-1], width, 2, stride=2)

    def forward(self, images: Tensor) -> list[Tensor]:
        maps: list[Tensor] = self.backbone(images)
        return maps if self.proj is None else [*maps, self.proj(maps[-1])]


class TokenMixing(nn.Module):
    """Self-attention among the cells; [B, N, C] to the same."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.q = nn.Linear(width, width)
        self.kv = nn.Linear(width, 2 * width)
        self.proj = nn.Linear(width, width)

    def forward(self, x: Tensor) -> Tensor:
        count, width = fixed_sizes(x)
        shape = (-1, count, self.heads, width // self.heads)
        k, v = self.kv(x).chunk(2, dim=-1)
        q, k, v = (t.reshape(shape).transpose(1, 2) for t in (self.q(x), k, v))
        mixed = F.scaled_dot_product_attention(q, k, v)
        out: Tensor = self.proj(mixed.transpose(1, 2).reshape(-1, count, width))
        return out


class DepthwiseConv(nn.Module):
    """Two depthwise 3x3 convolutions over a map."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(width, width, 3, padding=1, groups=width)
        self.act = nn.GELU()
        self.bn = nn.BatchNorm2d(width)
        self.conv2 = nn.Conv2d(width, width, 3, padding=1, groups=width)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.conv2(self.bn(self.act(self.conv1(x))))
        return out


class ConvMlp(nn.Module):
    """Feed-forward layer whose hidden units see their neighbours; tokens of a map of `size`."""

    def __init__(self, width: int, hidden: int) -> None:
        super().__init__()
        self.fc1 = nn.Linear(width, hidden)
        self.dwconv = DepthwiseConv(hidden)
        self.gamma = nn.Parameter(torch.ones(hidden))
        self.fc2 = nn.Linear(hidden, width)

    def forward(self, x: Tensor, size: tuple[int, int]) -> Tensor:
        x = self.fc1(x)
        x = self.gamma * tokens(self.dwconv(as_map(x, size))) + x
        out: Tensor = self.fc2(x)
        return out


class ChannelProcessing(nn.Module):
    """A feed-forward layer whose output channels are weighed by an attention among them."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.temperature = nn.Parameter(torch.ones(heads, 1, 1))
        self.mlp_v = ConvMlp(width, 4 * width)
        self.norm_v = nn.LayerNorm(width)
        self.q = nn.Linear(width, width)

    def forward(self, x: Tensor, size: tuple[int, int]) -> Tensor:
        shape = (self.heads, x.shape[-1] // self.heads)
        # Where each channel looks, and where each head's channels are on average: [B, N, h, (d)].
        queries = self.q(x).softmax(dim=1).unflatten(-1, shape)
        keys = x.softmax(dim=1).unflatten(-1, shape).mean(dim=-1, keepdim=True)
        weight = (queries * keys).sum(dim=1, keepdim=True).sigmoid()
        weight = (weight * self.temperature.view(-1, 1)).flatten(2)
        out: Tensor = weight * self.norm_v(self.mlp_v(x, size))
        return out


class FANBlock(nn.Module):
    """Attention among cells, then among channels; [B, C, H, W] to the same."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.norm1 = _token_norm(width)
        self.attn = TokenMixing(width, heads)
        self.drop_path = DropPath(DROP_PATH)
        self.norm2 = _token_norm(width)
        self.mlp = ChannelProcessing(width, heads)
        self.gamma1 = nn.Parameter(torch.ones(width))
        self.gamma2 = nn.Parameter(torch.ones(width))

    def forward(self, maps: Tensor) -> Tensor:
        _, *size = fixed_sizes(maps)
        x = tokens(maps)
        x = x + self.drop_path(self.gamma1 * self.attn(self.norm1(x)))
        x = x + self.drop_path(self.gamma2 * self.mlp(self.norm2(x), (size[0], size[1])))
        return as_map(x, (size[0], size[1]))


class ClassAttentionBlock(nn.Module):
    """What a layer of class attention does to the cells: norms; [B, C, H, W] to the same."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.norm1 = _token_norm(width)
        self.norm2 = _token_norm(width)
        self.gamma1 = nn.Parameter(torch.ones(width))

    def forward(self, maps: Tensor) -> Tensor:
        _, *size = fixed_sizes(maps)
        x = tokens(maps)
        x = 2 * self.norm2(x + self.gamma1 * self.norm1(x))
        return as_map(x, (size[0], size[1]))


def tokens(maps: Tensor) -> Tensor:
    """[B, C, H, W] to [B, N, C]; a view of a map that is channels last."""
    return maps.flatten(2).transpose(1, 2)


def as_map(x: Tensor, size: tuple[int, int]) -> Tensor:
    """[B, N, C] to [B, C, H, W], channels last."""
    return x.transpose(1, 2).reshape(-1, x.shape[2], *size)


class FAN(nn.Module):
    """FAN hybrid feature extractor.

    Args:
        size: tiny, small, base or large.
        return_indices: which of the four maps (0..3, strides 4..32) to return, ascending; what
            comes after the last one is not built.
        activation_checkpoint: recompute stages and blocks in the backward pass.
    """

    def __init__(
        self, size: str, return_indices: Sequence[int], activation_checkpoint: bool = False
    ) -> None:
        super().__init__()
        self.size, last = SIZES[size], max(return_indices)
        self.return_indices = tuple(return_indices)
        self.activation_checkpoint = activation_checkpoint
        widths = (*STEM_WIDTHS, self.size.width, LAST_WIDTH)
        self.channels = [widths[i] for i in return_indices]
        self.strides = [STRIDES[i] for i in return_indices]
        self._build(last)
        self.levels = level_layers("norm", return_indices, self.channels)
        self.apply(_init_weights)

    def _build(self, last: int) -> None:
        size = self.size
        has_tokens = last >= 2
        self.patch_embed = PatchEmbed(
            size.stem_depths[: last + 1],
            size.width if has_tokens else None,
            self.activation_checkpoint,
        )
        if not has_tokens:
            return
        self.pos_embed = FourierCode(nn.Conv2d(2 * FREQUENCIES, size.width, 1))
        depth = size.depth if last == LAST else size.read_after + 1
        self.blocks = nn.ModuleList(FANBlock(size.width, size.heads) for _ in range(depth))
        if last == LAST:
            self.cls_attn_blocks = nn.ModuleList(ClassAttentionBlock(size.width) for _ in range(2))
            self.learnable_downsample = nn.Conv2d(size.width, LAST_WIDTH, 3, stride=2, padding=1)

    def stem(self) -> list[nn.Module]:
        """The modules before the first stage."""
        return [self.patch_embed.backbone.stem]

    def forward(self, images: Tensor) -> list[Tensor]:
        """[B, 3, H, W] to one map [B, channels[i], H/strides[i], W/strides[i]] per level."""
        maps = self._maps(images)
        return [self.levels[str(i)](maps[i]) for i in self.return_indices]

    def _maps(self, images: Tensor) -> list[Tensor]:
        """All maps up to the last one that is returned."""
        maps: list[Tensor] = self.patch_embed(images)
        if self.patch_embed.proj is None:
            return maps
        *maps, x = maps
        x = x + self.pos_embed((x.shape[0], *x.shape[2:]))
        for index, block in enumerate(self.blocks):
            x = run(block, x, again=self.activation_checkpoint)
            if index == self.size.read_after:
                maps.append(x)
        if self.return_indices[-1] == LAST:
            for block in self.cls_attn_blocks:
                x = block(x)
            maps.append(self.learnable_downsample(x))
        return maps


def _init_weights(module: nn.Module) -> None:
    """As NVlabs does: little weights in linear layers, He's in the convolutions among tokens."""
    if isinstance(module, nn.Linear):
        nn.init.trunc_normal_(module.weight, std=0.02)
        nn.init.zeros_(module.bias)
    elif isinstance(module, DepthwiseConv):
        for conv in (module.conv1, module.conv2):
            nn.init.normal_(conv.weight, std=math.sqrt(2.0 / 9))
            assert conv.bias is not None
            nn.init.zeros_(conv.bias)
    elif isinstance(module, ConvStem):
        for inside in module.modules():
            if isinstance(inside, nn.Conv2d):
                nn.init.trunc_normal_(inside.weight, std=0.02)
                assert inside.bias is not None
                nn.init.zeros_(inside.bias)
