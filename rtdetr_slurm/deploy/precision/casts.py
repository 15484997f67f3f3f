"""Which nodes of a graph compute in float16, written into it as casts.

The type of every tensor is then in the file, as a strongly typed network wants it. A node's inputs
and outputs are float16 where its operator has that; a value that both kinds of nodes use is cast
once, and is nowhere rounded between two nodes that compute in float32.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence

import numpy as np
import onnx
from onnx import AttributeProto, ModelProto, NodeProto, TensorProto, defs, helper, numpy_helper

from rtdetr_slurm.errors import RequestError

FLOAT, HALF = TensorProto.FLOAT, TensorProto.FLOAT16
_GRAPHS = (AttributeProto.GRAPH, AttributeProto.GRAPHS)
_LARGEST = float(np.finfo(np.float16).max)
_IN_FLOAT: Mapping[str, tuple[int, ...]] = {"Resize": (1, 2)}
"""Inputs that stay float32 though the node computes in float16: a region and factors."""


def opset(model: ModelProto) -> int:
    """The version of ONNX's own operators that a file is written in."""
    return int(max(one.version for one in model.opset_import if one.domain in ("", "ai.onnx")))


def typed_tensors(model: ModelProto) -> dict[str, int]:
    """The element type of every tensor that ONNX can tell the type of."""
    graph = onnx.shape_inference.infer_shapes(model).graph
    types = {
        value.name: value.type.tensor_type.elem_type
        for value in (*graph.input, *graph.value_info, *graph.output)
    }
    return types | {one.name: one.data_type for one in graph.initializer}


def with_half(model: ModelProto, half: Collection[str]) -> ModelProto:
    """A copy of a float32 graph in which some nodes compute in float16.

    Inputs and outputs of the graph stay what they are.

    Args:
        model: each of its nodes has a name of its own.
        half: names of nodes; where an operator has no float16, nothing changes.

    Raises:
        RequestError: it has branches or loops.
    """
    made = ModelProto()
    made.CopyFrom(model)
    _Writer(made, half).write()
    return made


class _Writer:
    """The state of one pass over a graph, whose nodes come in the order in which they run.

    Attributes:
        types: tensor to its element type in the graph that is made.
        constants: initializers, and the values of Constant nodes.
    """

    def __init__(self, model: ModelProto, half: Collection[str]) -> None:
        self.graph, self.half, self.opset = model.graph, half, opset(model)
        self.types = typed_tensors(model)
        self.outputs = {value.name for value in self.graph.output}
        self.constants = {one.name: one for one in self.graph.initializer}
        self.cast: dict[tuple[str, int], str] = {}
        self.nodes: list[NodeProto] = []
        self.new: list[TensorProto] = []

    def write(self) -> None:
        for node in self.graph.node:
            if any(one.type in _GRAPHS for one in node.attribute):
                raise RequestError(
                    f"the ONNX file has a branch or a loop ({node.op_type} {node.name}), which "
                    "only an engine with gen_trt_engine.tensorrt.data_type FP32 can have"
                )
            if node.op_type == "Constant" and node.attribute[0].name == "value":
                self.constants[node.output[0]] = node.attribute[0].t
            self._rewrite(node)
        used = {name for node in self.nodes for name in node.input} | self.outputs
        kept = [one for one in self.nodes if one.op_type != "Constant" or one.output[0] in used]
        weights = [one for one in self.graph.initializer if one.name in used] + self.new
        for field, content in (("node", kept), ("initializer", weights)):
            self.graph.ClearField(field)
            getattr(self.graph, field).extend(content)
        self.graph.ClearField("value_info")

    def _rewrite(self, node: NodeProto) -> None:
        in_half = node.name in self.half
        inputs, outputs = self._can_be_half(node) if in_half else ((), ())
        for index, name in enumerate(node.input):
            if self.types.get(name) in (FLOAT, HALF):
                wanted = HALF if index in inputs else FLOAT
                node.input[index] = self._as(name, wanted)
        if in_half and node.op_type == "Cast":
            outputs = _cast_to_half(node)
        self.nodes.append(node)
        for index in outputs:
            name = node.output[index]
            if name in self.outputs:
                node.output[index] = f"{name}/half"
                self.types[f"{name}/half"] = HALF
                self.nodes.append(_cast(f"{name}/half", name, FLOAT))
            else:
                self.types[name] = HALF

    def _can_be_half(self, node: NodeProto) -> tuple[tuple[int, ...], tuple[int, ...]]:
        """Indices of the float inputs and outputs that the operator also has as float16."""
        try:
            schema = defs.get_schema(node.op_type, self.opset, node.domain)
        except defs.SchemaError:
            return (), ()
        both = {
            one.type_param_str
            for one in schema.type_constraints
            if "tensor(float16)" in one.allowed_type_strs
        }
        of_input = dict(_formal_types(node.input, schema.inputs))
        inputs = tuple(
            index
            for index, kind in of_input.items()
            if kind in both
            and index not in _IN_FLOAT.get(node.op_type, ())
            and self.types.get(node.input[index]) in (FLOAT, HALF)
        )
        changed = {of_input[index] for index in inputs}
        outputs = tuple(
            index for index, kind in _formal_types(node.output, schema.outputs) if kind in changed
        )
        return inputs, outputs

    def _as(self, name: str, kind: int) -> str:
        """The name of a tensor's values in float32 or float16."""
        if self.types[name] == kind:
            return name
        if (name, kind) not in self.cast:
            made = f"{name}/{'half' if kind == HALF else 'float'}"
            self.cast[name, kind], self.types[made] = made, kind
            if name in self.constants and kind == HALF:
                self.new.append(_in_half(self.constants[name], made))
            else:
                self.nodes.append(_cast(name, made, kind))
        return self.cast[name, kind]


def _formal_types(
    names: Iterable[str], formal: Sequence[defs.OpSchema.FormalParameter]
) -> Iterator[tuple[int, str]]:
    """Index and type parameter of each tensor that is there; the last one repeats."""
    for index, name in enumerate(names):
        if name:
            yield index, formal[min(index, len(formal) - 1)].type_str


def _cast(name: str, made: str, kind: int) -> NodeProto:
    return helper.make_node("Cast", [name], [made], name=f"{made}/Cast", to=kind)


def _cast_to_half(node: NodeProto) -> tuple[int, ...]:
    (to,) = (one for one in node.attribute if one.name == "to")
    if to.i != FLOAT:
        return ()
    to.i = HALF
    return (0,)


def _in_half(tensor: TensorProto, name: str) -> TensorProto:
    values = numpy_helper.to_array(tensor)
    return numpy_helper.from_array(values.clip(-_LARGEST, _LARGEST).astype(np.float16), name)
