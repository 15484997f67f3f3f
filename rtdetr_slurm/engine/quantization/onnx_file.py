"""Quantizing a detector in an ONNX file with modelopt: Q/DQ nodes before what is quantized."""

from __future__ import annotations

import re
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, redirect_stdout
from io import StringIO
from math import prod
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import ModelProto, NodeProto

from rtdetr_slurm.engine.onnx_graph import PRODUCER
from rtdetr_slurm.engine.process.failures import writing_error
from rtdetr_slurm.engine.quantization.libraries import quiet
from rtdetr_slurm.files import replace_with
from rtdetr_slurm.vision.onnx_metadata import INPUT
from rtdetr_slurm.vision.onnx_runtime import OnnxDetector, open_graph

KINDS: Mapping[str, tuple[str, ...]] = {
    "Conv": ("Conv2d", "Conv"),
    "Gemm": ("Linear", "Gemm"),
    "MatMul": ("Linear", "MatMul"),
}
"""Operator to the classes that a rule may call a node of it by."""


def layer_name(node: str) -> str:
    """The dotted name of the layer that a node was made of, from the node's own.

    The exporter writes the modules that are called, one after another; one in a called container
    has the container's name once more: /backbone/layer2/layer2.0/conv1/Conv.
    """
    parts: list[str] = []
    for part in node.strip("/").split("/")[:-1]:
        # What lies in one of the three parts of a detector may be called as that part is.
        if len(parts) > 1 and part.startswith(f"{parts[-1]}."):
            parts.pop()
        parts.append(part)
    return ".".join(parts)


def nodes_of(model: ModelProto, *, with_weights: bool = True) -> dict[str, NodeProto]:
    """The nodes that can be quantized, by their layers' names: products, where `with_weights` those
    with weights of their own.

    Of a module with layers in it, a node that is none of them has its own name after the module's.
    """
    weights = {one.name for one in model.graph.initializer}
    nodes = [one for one in model.graph.node if one.op_type in KINDS]
    if with_weights:
        nodes = [one for one in nodes if one.input[1] in weights]
    names = [layer_name(node.name) for node in nodes]
    around = {name[:end] for name in names for end, sign in enumerate(name) if sign == "."}
    return {
        f"{name}.{node.name.rpartition('/')[2]}" if name in around else name: node
        for name, node in zip(names, nodes, strict=True)
    }


def multiply_adds(model: ModelProto, nodes: Mapping[str, NodeProto]) -> tuple[int, dict[str, int]]:
    """Of one image: of all products in the graph, and by layer."""
    inferred = onnx.shape_inference.infer_shapes(model)
    graph = inferred.graph
    shapes = {
        value.name: [d.dim_value or 1 for d in value.type.tensor_type.shape.dim]
        for value in (*graph.input, *graph.value_info, *graph.output)
    }
    shapes |= {one.name: list(one.dims) for one in graph.initializer}
    counts = {
        node.name: _multiply_adds(node, shapes) for node in graph.node if node.op_type in KINDS
    }
    return sum(counts.values()), {name: counts[node.name] for name, node in nodes.items()}


def _multiply_adds(node: NodeProto, shapes: Mapping[str, list[int]]) -> int:
    first, second, out = (shapes[name] for name in (node.input[0], node.input[1], node.output[0]))
    # A kernel is [out, in / groups, height, width]: one product with each of these for an output.
    return prod(out) * (prod(second[1:]) if node.op_type == "Conv" else first[-1])


def quantize_file(
    path: Path,
    nodes: Sequence[str],
    number: str,
    algorithm: str,
    images: NDArray[np.float32],
) -> ModelProto:
    """Have modelopt quantize these nodes of a file, weights and activations.

    Args:
        nodes: names of nodes.
        number: int8 or fp8_e4m3fn.
        images: [N, 3, H, W] in 0..1, to calibrate on.

    Returns:
        The graph, which says of itself what the file said.
    """
    with quiet(), redirect_stdout(StringIO()), tempfile.TemporaryDirectory() as folder:
        from modelopt.onnx.quantization import quantize

        raw = Path(folder, "quantized.onnx")
        quantize(
            str(path),
            quantize_mode="int8" if number == "int8" else "fp8",
            calibration_data={INPUT: images},
            calibration_method="entropy" if algorithm == "entropy" else "max",
            calibration_eps=["cpu"],
            op_types_to_quantize=list(KINDS),
            nodes_to_quantize=[f"^{re.escape(name)}$" for name in nodes],
            high_precision_dtype="fp32",
            disable_mha_qdq=True,
            output_path=str(raw),
            log_level="ERROR",
        )
        made = onnx.load(raw)
    before = onnx.load(path, load_external_data=False)
    made.producer_name, made.producer_version = PRODUCER, before.producer_version
    made.graph.name = before.graph.name
    onnx.helper.set_model_props(made, {one.key: one.value for one in before.metadata_props})
    return made


def save(model: ModelProto, path: Path) -> None:
    """Write a graph after ONNX's checker has seen it; what was at `path` stays until it is whole.

    Raises:
        ActionError: it cannot be written.
    """
    onnx.checker.check_model(model, full_check=True)
    try:
        replace_with(path, lambda stream: stream.write(model.SerializeToString()))
    except OSError as error:
        raise writing_error(error, path) from None


def opened(model: ModelProto) -> OnnxDetector:
    """The detector of a graph; nothing of it is written."""
    return open_graph(model.SerializeToString())


def quantized_nodes(model: ModelProto) -> set[str]:
    """Names of the nodes whose weights come through a DequantizeLinear."""
    back = {node.output[0] for node in model.graph.node if node.op_type == "DequantizeLinear"}
    return {
        node.name for node in model.graph.node if node.op_type in KINDS and node.input[1] in back
    }


@contextmanager
def alone(model: ModelProto, node: str) -> Iterator[OnnxDetector]:
    """The detector of a quantized graph in which this node alone is quantized."""
    copied = ModelProto()
    copied.CopyFrom(model)
    made_by: dict[str, Any] = {name: one for one in copied.graph.node for name in one.output}
    for one in copied.graph.node:
        if one.name == node or one.op_type in ("QuantizeLinear", "DequantizeLinear"):
            continue
        for index, name in enumerate(one.input):
            back = made_by.get(name)
            if back is not None and back.op_type == "DequantizeLinear":
                there = made_by.get(back.input[0])
                if there is not None and there.op_type == "QuantizeLinear":
                    one.input[index] = there.input[0]
    yield opened(copied)
