"""float16 in a graph: where the casts are, and that what is computed is nearly the same."""

from __future__ import annotations

from collections import Counter

import numpy as np
import onnx
import pytest
from onnx import ModelProto, TensorProto
from precision_support import graph, run

from rtdetr_slurm.deploy.precision.casts import typed_tensors, with_half
from rtdetr_slurm.errors import RequestError


def kinds(model: ModelProto) -> Counter[str]:
    return Counter(node.op_type for node in model.graph.node)


def test_a_value_is_cast_once_and_stays_float32_between_nodes_in_float32() -> None:
    model = graph(
        "g (float[2, 3] x) => (float[2, 3] y, float[2, 3] z)"
        "{ a = Relu(x) b = Relu(x) c = Exp(x) d = Log(c) y = Add(a, d) z = Mul(b, d) }"
    )
    made = with_half(model, {"a", "b", "y", "z"})
    types = typed_tensors(made)
    assert kinds(made)["Cast"] == 4  # x and d to float16, both outputs to float32
    assert types["c"] == types["d"] == TensorProto.FLOAT
    assert types["a"] == types["b"] == TensorProto.FLOAT16
    assert types["x"] == types["y"] == types["z"] == TensorProto.FLOAT
    x = np.array([[0.1, 1, 2], [3, -4, 5]], dtype=np.float32)
    for expected, found in zip(run(model, x=x), run(made, x=x), strict=True):
        assert found == pytest.approx(expected, rel=2e-3)
    assert kinds(model)["Cast"] == 0


def test_weights_are_copied_for_who_wants_them_in_float16() -> None:
    weights = np.array([[1, 1e9], [-1e9, 0.1]], dtype=np.float32)
    model = graph(
        "g (float[1, 2] x) => (float[1, 2] y) { a = MatMul(x, w) b = Constant<value: tensor = "
        "float[1] {0.1}>() c = Add(a, b) d = MatMul(c, w) y = Add(d, b) }",
        {"w": weights},
    )
    made = with_half(model, {"a", "c"})
    known = {one.name: onnx.numpy_helper.to_array(one) for one in made.graph.initializer}
    largest = np.finfo(np.float16).max
    assert (known["w"] == weights).all()
    assert (known["w/half"] == weights.clip(-largest, largest).astype(np.float16)).all()
    assert known["b/half"].dtype == np.float16
    assert kinds(made)["Cast"] == 2
    every = with_half(model, {"a", "c", "d", "y"})
    assert {one.name for one in every.graph.initializer} == {"w/half", "b/half"}
    assert kinds(every)["Constant"] == 0


def test_what_an_operator_has_in_float32_alone_stays() -> None:
    model = graph(
        "g (float[1, 1, 2, 2] x) => (float[1, 1, 4, 4] y, int64[1, 1, 2, 2] z) {"
        "s = Constant<value: tensor = float[4] {1, 1, 2, 2}>()"
        'y = Resize<mode: string = "nearest">(x, , s) i = Cast<to: int = 7>(x)'
        "f = Cast<to: int = 1>(i) z = Cast<to: int = 7>(f) }"
    )
    made = with_half(model, {"y", "i", "f", "z"})
    types = typed_tensors(made)
    assert types["y/half"] == types["f"] == TensorProto.FLOAT16
    assert types["z"] == types["i"] == TensorProto.INT64
    assert types["s"] == TensorProto.FLOAT
    x = np.arange(4, dtype=np.float32).reshape(1, 1, 2, 2)
    for expected, found in zip(run(model, x=x), run(made, x=x), strict=True):
        assert (expected == found).all()


def test_branches_are_refused() -> None:
    model = graph(
        "g (bool c, float[1] x) => (float[1] y)"
        "{ y = If (c) <then_branch = t () => (float[1] a) { a = Relu(x) },"
        " else_branch = e () => (float[1] b) { b = Exp(x) }> }"
    )
    with pytest.raises(RequestError, match=r"a branch or a loop \(If y\).*data_type FP32"):
        with_half(model, {"y"})
