"""What torchao and modelopt decide: the codes of weights, the ranges of activations.

Both are imported where they are asked: that takes seconds.
"""

from __future__ import annotations

import copy
import io
import logging
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, redirect_stdout
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from typing import Any

import torch
from torch import Tensor, nn

from rtdetr_slurm.engine.quantization.layers import encode, per_channel, scale_of
from rtdetr_slurm.errors import SiteError
from rtdetr_slurm.spec.quantization import E4M3, E5M2, INT8, LayerFormat

_PACKAGES = {
    "torchao": "torchao",
    "modelopt.pytorch": "nvidia-modelopt",
    "modelopt.onnx": "nvidia-modelopt",
}


@dataclass(frozen=True)
class Decided:
    """Of one layer.

    Attributes:
        codes, scale: its weights, [out, ...] and [out].
        input_scale: of what it is given, []; None where that stays as it is.
    """

    codes: Tensor
    scale: Tensor
    input_scale: Tensor | None = None


Layers = Mapping[str, LayerFormat]
"""Dotted name of a layer to how it is quantized."""


def library_version(backend: str) -> str:
    """Name and version of a backend's library.

    Raises:
        SiteError: it is not installed.
    """
    package = _PACKAGES[backend]
    try:
        return f"{package} {version(package)}"
    except PackageNotFoundError:
        raise SiteError(
            f"quantize.backend '{backend}' needs {package}, which this Python does not have: "
            "install this package with its extra `quantize` (pip install "
            "'rtdetr-slurm[engine,quantize]'); the image of the Apptainerfile has it"
        ) from None


@contextmanager
def quiet() -> Iterator[None]:
    """Without what the libraries have to say of themselves, of PyTorch and of missing GPUs."""
    before = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(before)


@torch.no_grad()
def by_torchao(model: nn.Module, layers: Layers) -> dict[str, Decided]:
    """Weights as torchao's weight-only configurations make them, one scale per output channel.

    They are for Linear; a convolution's weights are one to them, with a row for each output.
    """
    with quiet():
        from torchao.quantization import (
            Float8WeightOnlyConfig,
            Int8WeightOnlyConfig,
            PerRow,
            quantize_,
        )
    decided = {}
    for name, formats in layers.items():
        weight: Tensor = model.get_submodule(name).weight  # type: ignore[assignment]
        matrix = weight.detach().float().flatten(1).contiguous()
        holder = nn.Linear(matrix.shape[1], matrix.shape[0], bias=False, device=matrix.device)
        holder.weight = nn.Parameter(matrix, requires_grad=False)
        config = {
            INT8: lambda: Int8WeightOnlyConfig(granularity=PerRow(), set_inductor_config=False),
            E4M3: lambda: Float8WeightOnlyConfig(
                weight_dtype=torch.float8_e4m3fn, set_inductor_config=False
            ),
            E5M2: lambda: Float8WeightOnlyConfig(
                weight_dtype=torch.float8_e5m2, set_inductor_config=False
            ),
        }[formats.weights]()
        quantize_(holder, config)
        made: Any = holder.weight
        codes, scale = made.qdata.reshape(weight.shape), made.scale.flatten()
        decided[name] = Decided(codes.clone(), scale.clone())
    return decided


@torch.no_grad()
def by_modelopt(
    model: nn.Module,
    layers: Layers,
    algorithm: str,
    run: Callable[[nn.Module], None],
) -> dict[str, Decided]:
    """Ranges as modelopt's calibrators find them, on a copy of the model.

    Args:
        algorithm: minmax, max: the largest magnitude; entropy: of activations in int8, the range
            that keeps most information. (Of FP8, whose steps grow with the value, the largest.)
        run: puts the images that calibrate through a model.
    """
    with quiet():
        import modelopt.torch.quantization as mtq
        from modelopt.torch.quantization.nn import TensorQuantizer

    settings: list[dict[str, object]] = [{"quantizer_name": "*", "enable": False}]
    bits = {INT8: 8, E4M3: (4, 3)}
    for name, formats in layers.items():
        weights = {"num_bits": bits[formats.weights], "axis": 0}
        settings.append({"quantizer_name": f"{name}.weight_quantizer", "cfg": weights})
        if formats.activations is not None:
            searched = algorithm == "entropy" and formats.activations == INT8
            activations = {
                "num_bits": bits[formats.activations],
                "axis": None,
                "calibrator": "histogram" if searched else "max",
            }
            settings.append({"quantizer_name": f"{name}.input_quantizer", "cfg": activations})
    with quiet(), redirect_stdout(io.StringIO()):
        copied = mtq.quantize(
            copy.deepcopy(model), {"quant_cfg": settings, "algorithm": None}, lambda _: None
        )
        quantizers = {
            name: one
            for name, one in copied.named_modules()
            if isinstance(one, TensorQuantizer) and one.is_enabled
        }
        for one in quantizers.values():
            one.disable_quant()
            one.enable_calib()
    run(copied)
    return {
        name: _decided(model.get_submodule(name), formats, quantizers, name)
        for name, formats in layers.items()
    }


def _decided(
    layer: nn.Module, formats: LayerFormat, quantizers: Mapping[str, nn.Module], name: str
) -> Decided:
    weight: Tensor = layer.weight  # type: ignore[assignment]
    largest = _largest(quantizers[f"{name}.weight_quantizer"])
    scale = scale_of(largest.flatten(), formats.weights)
    codes = encode(weight, per_channel(scale, weight), formats.weights)
    if formats.activations is None:
        return Decided(codes, scale)
    activations = _largest(quantizers[f"{name}.input_quantizer"])
    return Decided(codes, scale, scale_of(activations.reshape(()), formats.activations))


def _largest(quantizer: nn.Module) -> Tensor:
    calibrator = quantizer._calibrator
    searched = type(calibrator).__name__ == "HistogramCalibrator"
    found: Tensor = calibrator.compute_amax(*(["entropy"] if searched else []))  # type: ignore
    return found
