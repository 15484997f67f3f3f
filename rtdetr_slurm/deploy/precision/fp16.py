"""Which nodes of a detector may compute in float16: all but where that costs accuracy.

Products and what lies between them may. In float32 stay normalisations, softmax and sums, whose
values leave the range of float16 or add its rounding up, and what computes coordinates: boxes from
the last product of their heads on, with anchors and the logits they are added to, and the points at
which features are sampled, with the sampling itself, for which TensorRT wants one type. Near 1 a
step of float16 is a third of a pixel in 640.
"""

from __future__ import annotations

from onnx import ModelProto, NodeProto

from rtdetr_slurm.deploy.precision.casts import FLOAT, typed_tensors
from rtdetr_slurm.vision.onnx_metadata import BOXES

PRODUCTS = frozenset({"Conv", "ConvTranspose", "Gemm", "MatMul"})
_IN_FLOAT = frozenset(
    {
        *("LayerNormalization", "InstanceNormalization", "GroupNormalization", "Softmax"),
        *(
            "GridSample",
            "ReduceMean",
            "ReduceSum",
            "ReduceL2",
            "Pow",
            "Sqrt",
            "Exp",
            "Log",
            "Reciprocal",
        ),
    }
)
"""Operators that stay in float32 wherever they are."""


def half_nodes(model: ModelProto) -> set[str]:
    """Names of the nodes that may compute in float16; each node has one of its own."""
    nodes = [node for node in model.graph.node if node.op_type != "Constant"]
    made_by = {name: node for node in nodes for name in node.output}
    beside: dict[str, set[str]] = {node.name: set() for node in nodes}
    for node in nodes:
        makers = {made_by[name].name for name in node.input if name in made_by}
        beside[node.name] |= makers
        for name in makers:
            beside[name].add(node.name)
    islands = {node.name for node in nodes if node.op_type in _IN_FLOAT}
    islands |= _coordinates(model, made_by)
    # What has nothing but islands around it, as the epsilon of a norm, belongs to them.
    between = {node.name for node in nodes if node.op_type not in PRODUCTS} - islands
    while apart := {name for name in between if not beside[name] <= between | islands}:
        between -= apart
    return {node.name for node in nodes} - islands - between


def _coordinates(model: ModelProto, made_by: dict[str, NodeProto]) -> set[str]:
    """Names of the nodes that make boxes and sampling points of what products have made."""
    points = [node.input[1] for node in model.graph.node if node.op_type == "GridSample"]
    types = typed_tensors(model)
    ahead, found = [BOXES, *points], set[str]()
    while ahead:
        node = made_by.get(ahead.pop())
        if node is not None and node.name not in found and not _ends_product(node, made_by):
            found.add(node.name)
            ahead += [name for name in node.input if types.get(name) == FLOAT]
    return found


def _ends_product(node: NodeProto, made_by: dict[str, NodeProto]) -> bool:
    """Whether a node is a product, or adds the bias of one."""
    if node.op_type == "Add":
        makers = [made_by.get(name) for name in node.input]
        return None in makers and any(one is not None and one.op_type in PRODUCTS for one in makers)
    return node.op_type in PRODUCTS
