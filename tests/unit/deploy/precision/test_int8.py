"""Codes of 8 bits in a graph: what they decode to, their ranges, and which layers have them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from onnx import ModelProto, TensorProto, numpy_helper
from onnx_support import METADATA
from precision_support import calibration, graph, images, run
from torch import Tensor

from rtdetr_slurm.deploy.precision import typed
from rtdetr_slurm.deploy.precision.casts import opset, typed_tensors
from rtdetr_slurm.deploy.precision.int8 import at_opset, int8_share, with_int8
from rtdetr_slurm.deploy.precision.ranges import Histogram, measured_ranges
from rtdetr_slurm.deploy.precision.sensitivity import within_limit
from rtdetr_slurm.errors import ActionError, RequestError
from rtdetr_slurm.spec.gen_trt_engine import TensorRtConfig
from rtdetr_slurm.vision.onnx_runtime import open_onnx
from rtdetr_slurm.vision.parity import differences_of
from rtdetr_slurm.vision.scoring import Predict

GENERATOR = np.random.default_rng(0)
WEIGHTS = GENERATOR.normal(size=(4, 3)).astype(np.float32) * np.array([1, 1e-4, 10], np.float32)


def product() -> ModelProto:
    """[N, 4] times WEIGHTS, and that through a convolution that keeps its first half."""
    kernel = np.eye(3, dtype=np.float32).reshape(3, 3, 1, 1) * np.float32(0.5)
    return at_opset(
        graph(
            "g (float[N, 4] x) => (float[N, 3] y) {"
            "shape = Constant<value: tensor = int64[4] {-1, 3, 1, 1}>()"
            "flat = Constant<value: tensor = int64[2] {-1, 3}>()"
            "a = MatMul(x, w) b = Reshape(a, shape) c = Conv(b, k) y = Reshape(c, flat) }",
            {"w": WEIGHTS, "k": kernel},
        )
    )


def test_what_codes_decode_to() -> None:
    model = product()
    assert opset(model) == 19
    x = GENERATOR.normal(size=(50, 4)).astype(np.float32)
    (expected,) = run(model, x=x)
    made = with_int8(model, {"a", "c"}, {"x": float(np.abs(x).max()), "b": 40.0})
    (found,) = run(made, x=x)
    # Of each channel: half a code of the activations and of the weights, before and after.
    assert np.abs(found - expected).max(axis=0) == pytest.approx(np.zeros(3), abs=0.4)
    assert (np.abs(found - expected).max(axis=0) > 0).all()
    known = {one.name: numpy_helper.to_array(one) for one in made.graph.initializer}
    scale = known["w/scale"]
    assert (scale == scale.astype(np.float16)).all()  # so that float16 decodes to the same
    decoded = known["w/codes"] * scale
    assert (np.abs(decoded - WEIGHTS) <= scale / 2 * 1.001).all()
    assert np.abs(known["w/codes"]).max(axis=0).tolist() == [127, *[pytest.approx(127, abs=6)] * 2]
    assert "w" not in known
    assert int8_share(made) == 1
    assert int8_share(with_int8(model, {"a"}, {"x": 1.0})) == pytest.approx(12 / 21)
    assert int8_share(model) == 0


def test_ranges_that_lose_least() -> None:
    """An outlier is clipped where all others gain by it; values come in any order and magnitude."""
    values = GENERATOR.normal(size=20_000).astype(np.float32)
    few, growing, zeros = Histogram(), Histogram(), Histogram()
    for part in (*[values] * 50, np.full(1, 60, np.float32)):
        few.add(part)
    assert 3 < few.best_range() < 30
    for part in (values[:5] / 1000, values[5:], values * 7):
        growing.add(part)
    assert growing.largest == pytest.approx(np.abs(values).max() * 7)
    assert growing.counts.sum() == 40_000
    zeros.add(np.zeros(3, np.float32))
    assert zeros.best_range() == 0
    zeros.add(values)
    assert zeros.best_range() == pytest.approx(np.abs(values).max(), rel=0.3)


def test_ranges_of_a_graph_that_takes_so_many_images() -> None:
    model = graph("g (float[2, 1] inputs) => (float[2, 1] y) { a = Relu(inputs) y = Log(a) }")
    batches = [torch.tensor([[1.0], [2.0], [-4.0]])]
    found = measured_ranges(model, {"inputs", "a"}, batches)
    assert found == {"inputs": 4, "a": 2}
    with pytest.raises(ActionError, match=r"no number .* in y"):
        measured_ranges(model, {"y"}, batches)


WORK = {"big": 100, "middle": 50, "small": 10, "tiny": 1}
COST = {"big": 1.0, "middle": 0.1, "small": 0.2, "tiny": 0.5}


class TestWithinLimit:
    def choose(self, limit: float, moved: dict[str, float] | None = None) -> set[str]:
        def lost(layers: frozenset[str]) -> float:
            return sum(COST[name] for name in layers)

        return {*within_limit(WORK, moved or COST, lost, limit)}

    def test_everything_where_it_fits(self) -> None:
        assert self.choose(1.8) == {*WORK}

    def test_nothing_where_nothing_fits(self) -> None:
        assert self.choose(0.05) == set()

    def test_what_costs_least_for_its_work_comes_first(self) -> None:
        assert self.choose(1.1) == {"big", "middle"}
        assert self.choose(1.35) == {"big", "middle", "small"}

    def test_what_fits_beside_it_is_not_left_out(self) -> None:
        assert self.choose(0.7) == {"middle", "tiny"} or self.choose(0.7) == {"middle", "small"}

    def test_a_layer_that_nobody_has_compared_stays(self) -> None:
        assert self.choose(9, {"middle": 0.1}) == {"middle"}


def test_a_detector_in_int8(model: ModelProto, file: Path, tmp_path: Path) -> None:
    """Where nothing can be scored, the decoder and the transformer stay, and say so."""
    made = typed(model, TensorRtConfig(data_type="INT8"), calibration)
    assert 0.3 < made.int8_share < 1
    kept = made.higher_precision
    assert {*kept.values()} == {"fp16"}
    assert all(name.startswith(("decoder", "encoder.encoder")) for name in kept)
    assert "decoder.enc_score_head" in kept
    types = typed_tensors(made.model)
    assert {types[n.output[0]] for n in made.model.graph.node if n.op_type == "Conv"} == {
        TensorProto.FLOAT16
    }
    path = tmp_path / "int8.onnx"
    onnx.save(made.model, path)
    onnx.checker.check_model(str(path), full_check=True)
    after = open_onnx(path)
    assert after.metadata == METADATA
    (pixels,) = images(3)
    assert 0 < differences_of(open_onnx(file)(pixels), after(pixels)).median() < 0.05
    again = typed(made.model, TensorRtConfig(data_type="FP32"), calibration)
    assert again.int8_share == made.int8_share  # codes that are there stay
    config = TensorRtConfig(data_type="INT8", layers_precision=["backbone.conv1:fp32"])
    with pytest.raises(RequestError, match=r"conv1/Conv has 8 bits in the ONNX file already"):
        typed(made.model, config, calibration)


def test_layers_under_a_limit_and_as_asked(model: ModelProto) -> None:
    """What is scored is the float32 graph with codes; what is known is not asked again."""
    scored: list[Tensor] = []

    def score(predict: Predict) -> float:
        (pixels,) = images(1)
        scored.append(predict(pixels)["pred_logits"])
        return 0.5

    asked = ["backbone.*:fp32", "decoder.enc_score_head:int8"]
    known = calibration(score)
    config = TensorRtConfig(data_type="INT8", layers_precision=asked)
    made = typed(model, config, lambda: known)
    assert len(scored) == 2  # without, and with all that were compared
    assert not torch.equal(*scored)
    assert "decoder.enc_score_head" not in made.higher_precision
    backbone = {n: kind for n, kind in made.higher_precision.items() if n.startswith("backbone")}
    assert {*backbone.values()} == {"fp32"}
    assert not known.record.sensitivities.keys() & made.higher_precision.keys()
    assert known.record.images == 2
    known.batches = lambda _: pytest.fail("all is known")
    again = typed(model, config, lambda: known)
    assert again.model == made.model


def test_int8_is_for_products(model: ModelProto) -> None:
    asked = ["encoder.encoder.0.layers.0.norm1:int8"]
    config = TensorRtConfig(data_type="INT8", layers_precision=asked)
    with pytest.raises(RequestError, match="int8 is for convolutions"):
        typed(model, config, calibration)
