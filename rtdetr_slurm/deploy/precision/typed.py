"""A detector's graph in the precision that an engine is asked to have."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from onnx import ModelProto

from rtdetr_slurm.deploy.precision.casts import with_half
from rtdetr_slurm.deploy.precision.fp16 import half_nodes
from rtdetr_slurm.deploy.precision.layers import asked_formats
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


def typed(model: ModelProto, config: TensorRtConfig) -> Typed:
    """The graph in `data_type`, but for what `layers_precision` says otherwise.

    Its inputs and outputs stay float32, and it says of itself what it said.

    Args:
        model: as `rtdetr export` has made it; it is left as it is.

    Raises:
        RequestError: an entry of layers_precision means nothing.
    """
    if config.data_type == "INT8":
        raise RequestError("gen_trt_engine.tensorrt.data_type: INT8 is not in this version")
    model = named(model)
    asked = asked_formats(model, config.layers_precision)
    half = set() if config.data_type == "FP32" else half_nodes(model)
    half -= {node for node, number in asked.items() if number == "fp32"}
    half |= {node for node, number in asked.items() if number == "fp16"}
    return Typed(with_half(model, half) if half else model)


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
