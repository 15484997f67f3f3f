"""Operations whose backward pass is written out here, because autograd's would keep more tensors
or copy them.

Each is equal to the plain modules that its caller falls back to where `written_out` is false.
Autocast is left to the callers: what comes in has one floating type, but for the parameters, which
are cast as autocast would.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, TypeAlias

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.autograd import Function
from torch.autograd.function import once_differentiable

Gradients: TypeAlias = tuple[Tensor | None, ...]

_aten = torch.ops.aten


def written_out() -> bool:
    """Whether autograd records: a compiler and an exporter are to see plain modules."""
    seen_through = torch.compiler.is_compiling() or torch.onnx.is_in_onnx_export()
    return torch.is_grad_enabled() and not seen_through


def autocast_to(x: Tensor) -> Tensor:
    """`x` in the type that autocast lets convolutions and products compute in."""
    kind = x.device.type
    return x.to(torch.get_autocast_dtype(kind)) if torch.is_autocast_enabled(kind) else x


def normalizes(norm: nn.Module) -> bool:
    """Whether `norm` is a plain batch norm that uses the statistics of the batch."""
    return type(norm) is nn.BatchNorm2d and norm.training and norm.momentum is not None


def norm_silu(*branches: tuple[Tensor, nn.Module]) -> Tensor:
    """SiLU of the sum of batch norms, each of a map [B, C, H, W] of its own.

    Of the maps only those that come in are kept; what is normalised and summed is computed again.

    Args:
        branches: maps and the norms of which `normalizes` is true.
    """
    tensors: list[Tensor] = []
    settings = []
    for x, norm in branches:
        assert isinstance(norm, nn.BatchNorm2d)
        assert norm.running_mean is not None
        assert norm.running_var is not None
        if norm.num_batches_tracked is not None:  # it is while activations are computed again
            norm.num_batches_tracked.add_(1)
        tensors += [x, norm.weight, norm.bias, norm.running_mean, norm.running_var]
        settings.append((norm.momentum, norm.eps))
    out: Tensor = _NormSilu.apply(settings, *tensors)
    return out


class _NormSilu(Function):
    @staticmethod
    def forward(ctx: Any, settings: list[tuple[float, float]], *tensors: Tensor) -> Tensor:
        total: Tensor | None = None
        kept: list[Tensor] = []
        for (momentum, eps), (x, weight, bias, mean, var) in zip(
            settings, _in_fives(tensors), strict=True
        ):
            y, batch_mean, inverse_std = torch.native_batch_norm(
                x, weight, bias, mean, var, True, momentum, eps
            )
            total = y if total is None else total.add_(y)
            kept += [x, weight, bias, batch_mean, inverse_std]
        ctx.save_for_backward(*kept)
        ctx.eps = [eps for _, eps in settings]
        assert total is not None
        return F.silu(total, inplace=True)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> Gradients:
        branches = _in_fives(ctx.saved_tensors)
        total: Tensor | None = None
        for x, weight, bias, mean, inverse_std in branches:
            var = inverse_std.pow(-2)
            y = torch.native_batch_norm(x, weight, bias, mean, var, False, 0.0, 0.0)[0]
            total = y if total is None else total.add_(y)
        grad = _aten.silu_backward(grad, total)
        grads: list[Tensor | None] = [None]
        for (x, weight, _, mean, inverse_std), eps in zip(branches, ctx.eps, strict=True):
            of_branch = _aten.native_batch_norm_backward(
                grad, x, weight, None, None, mean, inverse_std, True, eps, [True, True, True]
            )
            grads += [*of_branch, None, None]
        return tuple(grads)


def _in_fives(tensors: tuple[Tensor, ...]) -> list[tuple[Tensor, ...]]:
    return [tensors[i : i + 5] for i in range(0, len(tensors), 5)]


def scaled_conv(x: Tensor, conv: nn.Conv2d, scale: Tensor, shift: Tensor) -> Tensor:
    """conv(x) * scale + shift for constants [C']; the scaled kernel is not kept."""
    out: Tensor = _ScaledConv.apply(
        autocast_to(x), conv.weight, scale, shift, conv.stride, conv.padding
    )
    return out


class _ScaledConv(Function):
    @staticmethod
    def forward(
        ctx: Any,
        x: Tensor,
        weight: Tensor,
        scale: Tensor,
        shift: Tensor,
        stride: tuple[int, int],
        padding: tuple[int, int],
    ) -> Tensor:
        ctx.save_for_backward(x, weight, scale)
        ctx.stride, ctx.padding = stride, padding
        kernel = (weight * scale[:, None, None, None]).to(x.dtype)
        return F.conv2d(x, kernel, shift.to(x.dtype), stride, padding)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> Gradients:
        x, weight, scale = ctx.saved_tensors
        scale = scale[:, None, None, None]
        of_x, of_kernel, _ = _aten.convolution_backward(
            grad,
            x,
            (weight * scale).to(x.dtype),
            None,
            ctx.stride,
            ctx.padding,
            (1, 1),
            False,
            (0, 0),
            1,
            (*ctx.needs_input_grad[:2], False),
        )
        of_weight = None if of_kernel is None else of_kernel.to(weight.dtype).mul_(scale)
        return of_x, of_weight, None, None, None, None


def max_pool(x: Tensor) -> Tensor:
    """3x3 maximum pooling with stride 2 and padding 1, [B, C, H, W] to [B, C, H/2, W/2]; neither
    its input is kept nor 64-bit indices are."""
    if not written_out():
        return F.max_pool2d(x, kernel_size=3, stride=2, padding=1)
    out: Tensor = _MaxPool.apply(x)
    return out


class _MaxPool(Function):
    GEOMETRY = ((3, 3), (2, 2), (1, 1), (1, 1), False)

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        out, indices = _aten.max_pool2d_with_indices(x, *_MaxPool.GEOMETRY)
        ctx.save_for_backward(indices.int())
        ctx.shape = x.shape
        pooled: Tensor = out
        return pooled

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> Tensor:
        (indices,) = ctx.saved_tensors
        # Of the input, only shape and layout are looked at.
        like = (
            torch.channels_last
            if grad.is_contiguous(memory_format=torch.channels_last)
            else torch.contiguous_format
        )
        x = torch.empty(ctx.shape, dtype=grad.dtype, device=grad.device, memory_format=like)
        of_x: Tensor = _aten.max_pool2d_with_indices_backward(
            grad, x, *_MaxPool.GEOMETRY, indices.long()
        )
        return of_x


def deformable_sampling(
    linear: nn.Linear, grids: Tensor, mix: Tensor, maps: list[Tensor]
) -> Tensor:
    """What deformable attention samples from the maps' values, mixed.

    The values are the maps' channels through a linear layer, and stay in planes:
    the product itself turns channels-last maps into them and its gradient back, which would be a
    copy each otherwise. Values and samples are computed again in the backward pass.

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
        ctx.save_for_backward(weight, bias, grids, mix, *maps)
        values = _values(weight, bias, maps, grids.dtype, len(mix))
        return (sample_levels(values, grids) * mix).sum(-1)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> Gradients:
        weight, bias, grids, mix, *maps = ctx.saved_tensors
        batch, dtype = len(maps[0]), maps[0].dtype
        kernel = weight.to(dtype).expand(batch, -1, -1)
        values = _values(weight, bias, maps, grids.dtype, len(mix))
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
