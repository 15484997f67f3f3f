"""Layers whose weights are codes of 8 bits, in plain PyTorch, and in ONNX as Q/DQ nodes."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from rtdetr_slurm.spec.quantization import E4M3, E5M2, INT8, LayerFormat


@dataclass(frozen=True)
class Number:
    """A number format.

    Attributes:
        largest: magnitude that a scale maps the largest value to.
    """

    dtype: torch.dtype
    largest: float


NUMBERS: Mapping[str, Number] = {
    INT8: Number(torch.int8, 127),
    E4M3: Number(torch.float8_e4m3fn, torch.finfo(torch.float8_e4m3fn).max),
    E5M2: Number(torch.float8_e5m2, torch.finfo(torch.float8_e5m2).max),
}


def scale_of(largest: Tensor, number: str) -> Tensor:
    """The scale for values up to a magnitude; of nothing but zeros it does not matter."""
    scale = largest.float() / NUMBERS[number].largest
    return torch.where(scale > 0, scale, torch.ones_like(scale))


def encode(x: Tensor, scale: Tensor, number: str) -> Tensor:
    """Values to codes: the nearest there is, ties to even."""
    form, scaled = NUMBERS[number], x / scale
    if number == INT8:
        return scaled.round().clamp(-128, 127).to(form.dtype)
    return scaled.clamp(-form.largest, form.largest).to(form.dtype)


def per_channel(scale: Tensor, weight: Tensor) -> Tensor:
    """[out] so that it multiplies a weight, [out, ...]."""
    return scale.reshape(-1, *[1] * (weight.dim() - 1))


class Quantized(nn.Module):
    """A Linear or Conv2d in place of which it stands, with quantized weights.

    Args:
        layer: what it takes its bias and its options from.
        formats: of the weights, and of what it is given, if of that.

    `weight` [out, ...] holds codes, which times `scale` [out] are the weights; `input_scale` [] is
    one for all activations, or None.
    """

    weight: Tensor
    scale: Tensor
    input_scale: Tensor | None

    def __init__(self, layer: nn.Linear | nn.Conv2d, formats: LayerFormat) -> None:
        super().__init__()
        self.formats = formats
        self.compute = _compute(layer)
        dtype = NUMBERS[formats.weights].dtype
        self.register_buffer("weight", torch.zeros_like(layer.weight, dtype=dtype))
        self.register_buffer("scale", torch.ones(len(layer.weight)))
        activations = None if formats.activations is None else torch.ones(())
        self.register_buffer("input_scale", activations)
        self.bias = layer.bias

    def forward(self, x: Tensor) -> Tensor:
        if self.formats.activations is not None:
            x = _Rounded.apply(x, self.input_scale, self.formats.activations)
        return self.compute(x, _Weight.apply(self.weight, self.scale), self.bias)

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> Quantized:
        # Codes of FP8 are no numbers that `float()` and the like may make others of.
        dtype = self.weight.dtype
        super()._apply(fn, recurse)  # type: ignore[no-untyped-call]
        self.weight = self.weight.to(dtype)
        return self


def formats_of(model: nn.Module) -> set[str]:
    """The number formats that its layers' weights have."""
    return {one.formats.weights for one in model.modules() if isinstance(one, Quantized)}


def rounds_activations(model: nn.Module) -> bool:
    """Whether any layer rounds what it is given: another order of the same sums may then make
    another number of it."""
    layers = (one for one in model.modules() if isinstance(one, Quantized))
    return any(one.formats.activations is not None for one in layers)


def _compute(layer: nn.Linear | nn.Conv2d) -> Callable[..., Tensor]:
    if isinstance(layer, nn.Linear):
        return F.linear
    assert layer.padding_mode == "zeros"
    return partial(
        F.conv2d,
        stride=layer.stride,
        padding=layer.padding,
        dilation=layer.dilation,
        groups=layer.groups,
    )


class _Rounded(torch.autograd.Function):
    """Activations to codes and back."""

    @staticmethod
    def forward(_: Any, x: Tensor, scale: Tensor, number: str) -> Tensor:
        return encode(x, scale, number).to(x.dtype) * scale

    @staticmethod
    def symbolic(g: Any, x: Any, scale: Any, number: str) -> Any:
        zero = g.op("Constant", value_t=torch.zeros((), dtype=NUMBERS[number].dtype))
        codes = g.op("QuantizeLinear", x, scale, zero)
        return g.op("DequantizeLinear", codes, scale, zero).setType(x.type())


class _Weight(torch.autograd.Function):
    """Codes to weights."""

    @staticmethod
    def forward(_: Any, codes: Tensor, scale: Tensor) -> Tensor:
        return codes.to(scale.dtype) * per_channel(scale, codes)

    @staticmethod
    def symbolic(g: Any, codes: Any, scale: Any) -> Any:
        kind = codes.type()
        zeros = torch.zeros(kind.sizes()[0], dtype=kind.dtype())
        zero = g.op("Constant", value_t=zeros)
        weights = g.op("DequantizeLinear", codes, scale, zero, axis_i=0)
        return weights.setType(kind.with_dtype(torch.float32))
