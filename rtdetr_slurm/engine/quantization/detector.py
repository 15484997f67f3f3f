"""Quantized detectors: made of plain ones, kept in a checkpoint, and built again."""

from __future__ import annotations

import copy
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from torch import nn

from rtdetr_slurm.engine.models import RTDETR
from rtdetr_slurm.engine.quantization.layers import NUMBERS, Quantized
from rtdetr_slurm.engine.quantization.libraries import Decided, Layers
from rtdetr_slurm.errors import RequestError
from rtdetr_slurm.runs.checkpoint_record import Quantization, QuantizedLayer
from rtdetr_slurm.spec.quantization import LayerFormat

MADE_WITH = {"backend", "mode", "algorithm", "layers", "skip_names"}
"""Fields of `quantize` that a checkpoint says that it was made with."""


def layers_of(model: nn.Module) -> dict[str, nn.Linear | nn.Conv2d]:
    """The layers that can be quantized, by their dotted names."""
    return {
        name: module
        for name, module in model.named_modules()
        if isinstance(module, nn.Linear | nn.Conv2d)
    }


def put_in_place(model: nn.Module, name: str, layer: nn.Module) -> None:
    """Let a layer stand where another one of that name stood."""
    above, _, last = name.rpartition(".")
    setattr(model.get_submodule(above), last, layer)


def quantized(model: RTDETR, layers: Layers, decided: Mapping[str, Decided]) -> RTDETR:
    """A copy of a fused detector in which these layers are quantized."""
    copied = copy.deepcopy(model)
    for name, formats in layers.items():
        plain = copied.get_submodule(name)
        assert isinstance(plain, nn.Linear | nn.Conv2d)
        layer = Quantized(plain, formats).to(plain.weight.device)
        one = decided[name]
        layer.weight, layer.scale, layer.input_scale = one.codes, one.scale, one.input_scale
        put_in_place(copied, name, layer)
    return copied


@contextmanager
def alone(plain: nn.Module, full: nn.Module, name: str) -> Iterator[nn.Module]:
    """`plain`, with one layer as `full` has it."""
    before = plain.get_submodule(name)
    put_in_place(plain, name, full.get_submodule(name))
    try:
        yield plain
    finally:
        put_in_place(plain, name, before)


def described(layers: Layers) -> dict[str, QuantizedLayer]:
    """As a checkpoint says how its layers are quantized."""
    return {
        name: {"weights": one.weights, "activations": one.activations}
        for name, one in layers.items()
    }


def check_agreement(
    given: Mapping[str, Any] | None, made_with: Mapping[str, Any], path: Path
) -> None:
    """A `quantize` section beside a quantized checkpoint is not needed, and may not contradict it.

    Args:
        given: the spec's section, resolved; None where it has none.
        made_with: what the checkpoint was made with.

    Raises:
        RequestError: it says something else.
    """
    for name, value in made_with.items():
        if given is not None and given.get(name) != value:
            raise RequestError(
                f"quantize.{name}: found {given.get(name)!r}; {path} was made with {value!r}: "
                "leave the section quantize out, or give it the same"
            )


def rebuilt(model: RTDETR, quantization: Quantization, path: Path) -> RTDETR:
    """The detector that a quantized checkpoint's weights are for, not yet with them.

    Args:
        model: as the spec describes it, with any weights.
        quantization: what the checkpoint says of itself.

    Raises:
        RequestError: the detector has not these layers.
    """
    fused = model.fuse()
    there = layers_of(fused)
    for name, formats in quantization["layers"].items():
        weights, activations = formats["weights"], formats["activations"]
        known = weights in NUMBERS and activations in (None, *NUMBERS)
        if name not in there or not known:
            raise RequestError(
                f"quantized checkpoint {path} has a layer {name} ({weights}), which the detector "
                "of this spec does not have: check that the fields of model are those of the file"
            )
        put_in_place(fused, name, Quantized(there[name], LayerFormat(weights, activations)))
    return fused
