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


def norm_silu(x: Tensor, *branches: tuple[nn.Conv2d, nn.Module]) -> Tensor:
    """SiLU of the sum of normalised convolutions of x, [B, C, H, W].

    What is normalised and summed is not kept, but computed again in the backward pass, and so are
    convolutions that cost little.

    Args:
        branches: convolutions without bias, and norms of which `normalizes` is true.
    """
    tensors: list[Tensor | None] = []
    settings = []
    for conv, norm in branches:
        assert isinstance(norm, nn.BatchNorm2d)
        assert norm.running_mean is not None
        assert norm.running_var is not None
        if norm.num_batches_tracked is not None:  # it is while activations are computed again
            norm.num_batches_tracked.add_(1)
        tensors += [autocast_to(x), conv.weight] if _costs_little(conv) else [conv(x), None]
        tensors += [norm.weight, norm.bias, norm.running_mean, norm.running_var]
        settings.append((norm.momentum, norm.eps))
    out: Tensor = _NormSilu.apply(settings, *tensors)
    return out


def _costs_little(conv: nn.Conv2d) -> bool:
    """Whether to compute a map again rather than to keep it: one multiplication per channel and
    value, and what is spared is at least half of what is kept anyway."""
    pointwise = conv.kernel_size == (1, 1) and conv.stride == (1, 1)
    return pointwise and conv.in_channels <= 2 * conv.out_channels


class _NormSilu(Function):
    @staticmethod
    def forward(ctx: Any, settings: list[tuple[float, float]], *tensors: Any) -> Tensor:
        total: Tensor | None = None
        kept: list[Tensor | None] = []
        for (momentum, eps), (x, kernel, weight, bias, mean, var) in zip(
            settings, _in_sixes(tensors), strict=True
        ):
            y, batch_mean, inverse_std = torch.native_batch_norm(
                _pointwise(x, kernel), weight, bias, mean, var, True, momentum, eps
            )
            total = y if total is None else total.add_(y)
            kept += [x, kernel, weight, bias, batch_mean, inverse_std]
        ctx.save_for_backward(*kept)
        ctx.eps = [eps for _, eps in settings]
        assert total is not None
        return F.silu(total, inplace=True)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> Gradients:
        branches = _in_sixes(ctx.saved_tensors)
        maps = [_pointwise(x, kernel) for x, kernel, *_ in branches]
        total: Tensor | None = None
        for one, (_, _, weight, bias, mean, inverse_std) in zip(maps, branches, strict=True):
            var = inverse_std.pow(-2)
            y = torch.native_batch_norm(one, weight, bias, mean, var, False, 0.0, 0.0)[0]
            total = y if total is None else total.add_(y)
        grad = _aten.silu_backward(grad, total)
        grads: list[Tensor | None] = [None]
        for one, (x, kernel, weight, _, mean, inverse_std), eps in zip(
            maps, branches, ctx.eps, strict=True
        ):
            of_x, of_weight, of_bias = _aten.native_batch_norm_backward(
                grad, one, weight, None, None, mean, inverse_std, True, eps, [True, True, True]
            )
            of_kernel = None
            if kernel is not None:
                wanted = ctx.needs_input_grad[len(grads) : len(grads) + 2]
                cast = kernel.to(x.dtype)
                of_x, of_kernel = _conv_backward(of_x, x, cast, (1, 1), (0, 0), wanted)
                of_kernel = None if of_kernel is None else of_kernel.to(kernel.dtype)
            grads += [of_x, of_kernel, of_weight, of_bias, None, None]
        return tuple(grads)


def _in_sixes(tensors: Sequence[Any]) -> list[Sequence[Any]]:
    return [tensors[i : i + 6] for i in range(0, len(tensors), 6)]


def _pointwise(x: Tensor, kernel: Tensor | None) -> Tensor:
    return x if kernel is None else F.conv2d(x, kernel.to(x.dtype))


def _conv_backward(
    grad: Any,
    x: Tensor,
    kernel: Tensor,
    stride: Sequence[int],
    padding: Sequence[int],
    wanted: tuple[bool, bool] = (True, True),
) -> tuple[Any, Any]:
    """Gradients of a convolution's input and kernel; None for one that is not wanted."""
    found = _aten.convolution_backward(
        grad, x, kernel, None, stride, padding, (1, 1), False, (0, 0), 1, (*wanted, False)
    )
    return found[0], found[1]


ScaledConv: TypeAlias = tuple[nn.Conv2d, Tensor, Tensor]
"""conv(x) * scale + shift, for constants [C']."""


def scaled_convs(x: Tensor, *convs: ScaledConv, pooled: bool = False) -> Tensor:
    """Convolutions, with ReLU between them, of x, or of the averages of its 2x2 cells.

    Neither the scaled kernels are kept for the backward pass, nor the averages, nor, of several
    convolutions, what is between them: to be used where all but the last one cost little.
    """
    geometries = [(conv.stride, conv.padding) for conv, _, _ in convs]
    tensors = [one for conv, *constants in convs for one in (conv.weight, *constants)]
    out: Tensor = _ScaledConvs.apply(geometries, pooled, autocast_to(x), *tensors)
    return out


class _ScaledConvs(Function):
    @staticmethod
    def forward(
        ctx: Any, geometries: list[Any], pooled: bool, x: Tensor, *tensors: Tensor
    ) -> Tensor:
        ctx.save_for_backward(x, *tensors)
        ctx.geometries, ctx.pooled = geometries, pooled
        convs = list(zip(_in_threes(tensors), geometries, strict=True))
        return _scaled_conv(_scaled_inputs(x, pooled, convs)[-1], *convs[-1])

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> Gradients:
        x, *tensors = ctx.saved_tensors
        convs = list(zip(_in_threes(tensors), ctx.geometries, strict=True))
        inputs = _scaled_inputs(x, ctx.pooled, convs)
        grads: list[Tensor | None] = []
        of: Tensor | None = grad
        for index in reversed(range(len(convs))):
            (weight, scale, _), (stride, padding) = convs[index]
            kernel = _scaled(weight, scale).to(x.dtype)
            wanted = (index > 0 or ctx.needs_input_grad[2], ctx.needs_input_grad[3 + 3 * index])
            of, of_kernel = _conv_backward(of, inputs[index], kernel, stride, padding, wanted)
            of_weight = None if of_kernel is None else _scaled(of_kernel.to(weight.dtype), scale)
            grads = [of_weight, None, None, *grads]
            if index > 0:
                of = _aten.threshold_backward(of, inputs[index], 0)
        if ctx.pooled and of is not None:
            of = _aten.avg_pool2d_backward(of, x, (2, 2), (2, 2), (0, 0), False, True, None)
        return None, None, of, *grads


_Conv: TypeAlias = tuple[Sequence[Tensor], Any]
"""Weight, scale and shift; stride and padding."""


def _scaled_inputs(x: Tensor, pooled: bool, convs: Sequence[_Conv]) -> list[Tensor]:
    """What goes into each convolution."""
    inputs = [F.avg_pool2d(x, 2) if pooled else x]
    for each in convs[:-1]:
        inputs.append(_scaled_conv(inputs[-1], *each).relu_())
    return inputs


def _in_threes(tensors: Sequence[Tensor]) -> list[Sequence[Tensor]]:
    return [tensors[i : i + 3] for i in range(0, len(tensors), 3)]


def _scaled_conv(x: Tensor, tensors: Sequence[Tensor], geometry: Any) -> Tensor:
    weight, scale, shift = tensors
    return F.conv2d(x, _scaled(weight, scale).to(x.dtype), shift.to(x.dtype), *geometry)


def _scaled(kernel: Tensor, scale: Tensor) -> Tensor:
    return kernel * scale[:, None, None, None]


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
