"""INT8 in a graph: what some of its products are given goes through codes of 8 bits and back.

QuantizeLinear and DequantizeLinear stand before activations, with one scale for all of a tensor;
weights are kept as codes, with a scale for each output channel. Zero stays zero. That is the form
in which TensorRT computes a product in INT8.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import ModelProto, NodeProto, TensorProto, helper, numpy_helper

from rtdetr_slurm.deploy.precision.casts import opset, typed_tensors
from rtdetr_slurm.engine.quantization.onnx_file import KINDS, multiply_adds

OPSET = 19
"""The first in which scales can be float16."""
LARGEST = 127


def at_opset(model: ModelProto) -> ModelProto:
    """A graph in an operator set that has float16 scales."""
    if opset(model) >= OPSET:
        return model
    made = onnx.version_converter.convert_version(model, OPSET)
    made.producer_name, made.producer_version = model.producer_name, model.producer_version
    helper.set_model_props(made, {one.key: one.value for one in model.metadata_props})
    return made


def is_quantized(model: ModelProto) -> bool:
    """Whether a graph has codes in it already."""
    return any(node.op_type == "DequantizeLinear" for node in model.graph.node)


def int8_products(model: ModelProto) -> set[str]:
    """Names of the nodes that multiply two numbers that were codes in INT8."""
    types = typed_tensors(model)
    decoded = {
        node.output[0]
        for node in model.graph.node
        if node.op_type == "DequantizeLinear" and types.get(node.input[0]) == TensorProto.INT8
    }
    products = (node for node in model.graph.node if node.op_type in KINDS)
    return {node.name for node in products if decoded.issuperset(node.input[:2])}


def int8_share(model: ModelProto) -> float:
    """Of all multiply-adds of a graph, those of `int8_products`, 0..1."""
    products = {node.name: node for node in model.graph.node if node.op_type in KINDS}
    total, work = multiply_adds(model, products)
    return sum(work[name] for name in int8_products(model)) / max(total, 1)


def with_int8(model: ModelProto, nodes: Collection[str], ranges: Mapping[str, float]) -> ModelProto:
    """A copy of a float32 graph in which some nodes multiply codes of 8 bits.

    Args:
        nodes: names of products.
        ranges: tensor that such a product is given, unless it is a weight, to the largest magnitude
            that has a code.
    """
    made = ModelProto()
    made.CopyFrom(model)
    weights = {one.name: one for one in model.graph.initializer}
    coded: dict[str, str] = {}
    order: list[NodeProto] = []
    new: list[TensorProto] = []

    def there_and_back(name: str) -> list[NodeProto]:
        scale = _scale(np.float32(ranges[name]))
        new.extend(_constants(name, scale))
        codes, given = f"{name}/codes", [f"{name}/scale", f"{name}/zero"]
        return [
            helper.make_node("QuantizeLinear", [name, *given], [codes], name=codes),
            helper.make_node("DequantizeLinear", [codes, *given], [coded[name]], name=coded[name]),
        ]

    def back(name: str, axis: int) -> list[NodeProto]:
        weight = numpy_helper.to_array(weights[name])
        largest = np.abs(weight).max(axis=tuple(i for i in range(weight.ndim) if i != axis))
        scale = _scale(largest)
        shape = [-1 if i == axis else 1 for i in range(weight.ndim)]
        codes = np.rint(weight / scale.reshape(shape)).clip(-LARGEST, LARGEST).astype(np.int8)
        new.append(numpy_helper.from_array(codes, f"{name}/codes"))
        new.extend(_constants(name, scale))
        given = [f"{name}/codes", f"{name}/scale", f"{name}/zero"]
        node = helper.make_node(
            "DequantizeLinear", given, [coded[name]], name=coded[name], axis=axis
        )
        return [node]

    for node in made.graph.node:
        if node.name in nodes:
            for index in (0, 1):
                name = node.input[index]
                if name not in coded:
                    coded[name] = f"{name}/decoded"
                    axis = _channels(node) if index else 0
                    order += back(name, axis) if name in weights else there_and_back(name)
                node.input[index] = coded[name]
        order.append(node)
    used = {name for node in order for name in node.input}
    kept = [one for one in made.graph.initializer if one.name in used]
    made.graph.ClearField("node")
    made.graph.node.extend(order)
    made.graph.ClearField("initializer")
    made.graph.initializer.extend([*kept, *new])
    return made


def _channels(node: NodeProto) -> int:
    """The axis of a product's weight that its outputs' channels are on."""
    if node.op_type == "Gemm":
        return 0 if any(one.name == "transB" and one.i for one in node.attribute) else 1
    return 0 if node.op_type == "Conv" else 1


def _scale(largest: NDArray[np.float32] | np.float32) -> NDArray[np.float32]:
    """The scale for values up to a magnitude; float16 has it, too. Of zeros it does not matter."""
    scale = np.asarray(largest, np.float32) / LARGEST
    half = scale.astype(np.float16)
    half = np.where(half < scale, np.nextafter(half, np.float16(np.inf)), half)
    return np.where(scale > 0, half.astype(np.float32), np.float32(1))


def _constants(name: str, scale: NDArray[np.float32]) -> list[TensorProto]:
    zero = np.zeros_like(scale, dtype=np.int8)
    return [
        numpy_helper.from_array(scale, f"{name}/scale"),
        numpy_helper.from_array(zero, f"{name}/zero"),
    ]
