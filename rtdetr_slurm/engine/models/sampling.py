"""What deformable attention samples, with a backward pass that keeps little."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.autograd import Function
from torch.autograd.function import once_differentiable

from rtdetr_slurm.engine.models.functions import Gradients, autocast_to

_aten = torch.ops.aten


def deformable_sampling(
    linear: nn.Linear, grids: Tensor, mix: Tensor, maps: list[Tensor]
) -> Tensor:
    """What deformable attention samples from the maps' values, mixed.

    The values are the maps' channels through a linear layer, and stay in planes:
    the product itself turns channels-last maps into them and its gradient back, which would be a
    copy each otherwise. The samples are computed again in the backward pass.

    Args:
        linear: D to D'.
        grids: [levels, B * heads, N, points, 2] in -1..1.
        mix: [B * heads, 1, N, levels * points], the weights of the samples.
        maps: [B, D, H_l, W_l] per level.

    Returns:
        [B * heads, D' / heads, N].
    """
    out: Tensor = _DeformableSampling.apply(
        linear.weight, linear.bias, grids, mix, *map(autocast_to, maps)
    )
    return out


class _DeformableSampling(Function):
    @staticmethod
    def forward(
        ctx: Any, weight: Tensor, bias: Tensor, grids: Tensor, mix: Tensor, *maps: Tensor
    ) -> Tensor:
        values = _values(weight, bias, maps, grids.dtype, len(mix))
        ctx.save_for_backward(weight, grids, mix, *maps, *values)
        return (sample_levels(values, grids) * mix).sum(-1)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> Gradients:
        weight, grids, mix, *kept = ctx.saved_tensors
        maps, values = kept[: len(grids)], kept[len(grids) :]
        batch, dtype = len(maps[0]), maps[0].dtype
        kernel = weight.to(dtype).expand(batch, -1, -1)
        grad = grad[..., None]
        of_mix = (sample_levels(values, grids) * grad).sum(1, keepdim=True)
        of_samples = (grad * mix).split(grids.shape[3], dim=-1)
        of_weight, of_bias = torch.zeros_like(weight), weight.new_zeros(len(weight))
        of_grids, of_maps = [], []
        for one, value, grid, of_sample in zip(maps, values, grids, of_samples, strict=True):
            of_value, of_grid = _aten.grid_sampler_2d_backward(
                of_sample, value, grid, 0, 0, False, [True, True]
            )
            of_value = of_value.view(batch, len(weight), -1).to(dtype)
            of_grids.append(of_grid)
            of_maps.append(torch.bmm(of_value.mT, kernel).mT.view(one.shape))
            of_weight += torch.bmm(of_value, one.flatten(2).mT).sum(0)
            of_bias += of_value.sum((0, 2))
        return of_weight, of_bias, torch.stack(of_grids), of_mix, *of_maps


def _values(
    weight: Tensor, bias: Tensor, maps: Sequence[Tensor], dtype: torch.dtype, heads: int
) -> list[Tensor]:
    """What is sampled: per level [B * heads, D' / heads, H_l, W_l] of `dtype`."""
    batch, computed = len(maps[0]), maps[0].dtype
    kernel, shift = weight.to(computed).expand(batch, -1, -1), bias.to(computed)[:, None]
    sizes = [one.shape[2] * one.shape[3] for one in maps]
    planes = maps[0].new_empty(batch, len(weight), sum(sizes))
    for one, out in zip(maps, planes.split(sizes, dim=2), strict=True):
        torch.baddbmm(shift, kernel, one.flatten(2), out=out)
    levels = planes.to(dtype).view(heads, -1, planes.shape[2]).split(sizes, dim=2)
    return [level.unflatten(2, one.shape[2:]) for level, one in zip(levels, maps, strict=True)]


def sample_levels(values: list[Tensor], grids: Tensor) -> Tensor:
    sampled = [
        F.grid_sample(value, grid, mode="bilinear", padding_mode="zeros", align_corners=False)
        for value, grid in zip(values, grids.unbind(0), strict=True)
    ]
    return torch.cat(sampled, dim=-1)
