"""A detector's graph in the precision that an engine is asked to have."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from onnx import ModelProto

from rtdetr_slurm.deploy.precision.calibration import Calibration
from rtdetr_slurm.deploy.precision.casts import with_half
from rtdetr_slurm.deploy.precision.fp16 import half_nodes
from rtdetr_slurm.deploy.precision.int8 import at_opset, int8_products, int8_share, is_quantized
from rtdetr_slurm.deploy.precision.layers import asked_formats
from rtdetr_slurm.deploy.precision.sensitivity import quantize
from rtdetr_slurm.engine.quantization.onnx_file import nodes_of, quantized_nodes
from rtdetr_slurm.errors import RequestError
from rtdetr_slurm.spec.gen_trt_engine import TensorRtConfig


@dataclass(frozen=True)
class Typed:
    """A graph in which every number format is written.

    Attributes:
        int8_share: of its multiply-adds, those of INT8 numbers, 0..1.
        higher_precision: layers that are in a higher precision than `data_type`, and which.
    """

    model: ModelProto
    int8_share: float = 0.0
    higher_precision: Mapping[str, str] = field(default_factory=dict)


def typed(model: ModelProto, config: TensorRtConfig, calibrate: Callable[[], Calibration]) -> Typed:
    """The graph in `data_type`, but for what `layers_precision` says otherwise.

    Its inputs and outputs stay float32, and it says of itself what it said. Codes of 8 bits that
    are in it already stay, whatever the type of the rest.

    Args:
        model: as `rtdetr export` has made it; it is left as it is.
        calibrate: what INT8 is made with; called where that is asked for, and not in the file.

    Raises:
        RequestError: an entry of layers_precision means nothing, or there is nothing to calibrate
            on.
        Interrupted: asked to stop.
    """
    model, data_type = named(model), config.data_type
    asked = asked_formats(model, config.layers_precision)
    _refuse_decoded(model, asked)
    if data_type == "INT8" or is_quantized(model):
        model = at_opset(model)
    if data_type == "INT8" and not is_quantized(model):
        model = quantize(
            model, asked, calibrate(), lambda made: with_half(made, _half(made, data_type, asked))
        )
    half = _half(model, data_type, asked)
    done = quantized_nodes(model) | int8_products(model)
    others = {
        layer: "fp16" if node.name in half else "fp32"
        for layer, node in nodes_of(model, with_weights=False).items()
        if node.name not in done
    }
    allowed = {"FP32": ("fp16", "fp32"), "FP16": ("fp16",), "INT8": ()}[data_type]
    return Typed(
        with_half(model, half) if half else model,
        int8_share(model),
        {layer: number for layer, number in others.items() if number not in allowed},
    )


def _half(model: ModelProto, data_type: str, asked: Mapping[str, str]) -> set[str]:
    """Names of the nodes that compute in float16."""
    half = set() if data_type == "FP32" else half_nodes(model)
    half -= {node for node, number in asked.items() if number == "fp32"}
    return half | {node for node, number in asked.items() if number == "fp16"}


def _refuse_decoded(model: ModelProto, asked: Mapping[str, str]) -> None:
    decoded = sorted(quantized_nodes(model) & asked.keys())
    if decoded:
        raise RequestError(
            f"gen_trt_engine.tensorrt.layers_precision: {decoded[0]} has 8 bits in the ONNX file "
            "already (Q/DQ nodes), which stays so: leave it out, or give the file as it was before "
            "it was quantized"
        )


def named(model: ModelProto) -> ModelProto:
    """A copy in which every node has a name of its own: names may be left out, and repeat."""
    copied = ModelProto()
    copied.CopyFrom(model)
    known: set[str] = set()
    for index, node in enumerate(copied.graph.node):
        if not node.name or node.name in known:
            node.name = f"{node.name or node.op_type}_{index}"
        known.add(node.name)
    return copied
