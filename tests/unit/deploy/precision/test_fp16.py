"""Which nodes stay in float32, and what a whole detector in float16 finds."""

from __future__ import annotations

from pathlib import Path

import onnx
import pytest
import torch
from onnx import ModelProto, TensorProto
from onnx_support import METADATA

from rtdetr_slurm.deploy.precision import typed
from rtdetr_slurm.deploy.precision.casts import typed_tensors
from rtdetr_slurm.deploy.precision.fp16 import half_nodes
from rtdetr_slurm.errors import RequestError
from rtdetr_slurm.spec.gen_trt_engine import TensorRtConfig
from rtdetr_slurm.vision.onnx_runtime import open_onnx
from rtdetr_slurm.vision.parity import differences_of


def types_of(model: ModelProto, op_type: str) -> set[int]:
    """Types of what the nodes of an operator make."""
    types = typed_tensors(model)
    return {types[node.output[0]] for node in model.graph.node if node.op_type == op_type}


def test_a_detector_in_float16(file: Path, model: ModelProto, tmp_path: Path) -> None:
    made = typed(model, TensorRtConfig(data_type="FP16"), pytest.fail).model
    path = tmp_path / "half.onnx"
    onnx.save(made, path)
    onnx.checker.check_model(str(path), full_check=True)
    for product in ("Conv", "MatMul"):
        assert types_of(made, product) == {TensorProto.FLOAT16}
    for island in ("LayerNormalization", "Softmax", "GridSample", "ReduceSum"):
        assert types_of(made, island) == {TensorProto.FLOAT}
    before, after = open_onnx(file), open_onnx(path)  # which takes float32 inputs and outputs alone
    assert after.metadata == METADATA
    images = torch.rand(3, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    differences = differences_of(before(images), after(images))
    assert 0 < differences.median() < 2e-3


def test_coordinates_stay_in_float32(model: ModelProto) -> None:
    """From the biases of box heads to the boxes, and from offsets to where features are sampled;
    not the scores, which choose queries by their indices."""
    half = half_nodes(model)
    for start in ("/decoder/decoder/Sigmoid", "/decoder/decoder/Add", "/decoder/decoder/Clip"):
        of_boxes = {node.name for node in model.graph.node if node.name.startswith(start)}
        assert of_boxes
        assert not of_boxes & half
    sampling = {n.rpartition("/")[2].partition("_")[0] for n in half if "/cross_attn/" in n}
    assert sampling == {"Add", "Conv", "MatMul", "Reshape", "Transpose"}
    assert {"/decoder/TopK", "/decoder/ReduceMax", "/decoder/enc_score_head/Add"} <= half
    assert "/decoder/Gather_1" not in half  # of anchors


def test_layers_of_another_format(model: ModelProto) -> None:
    def half(*entries: str, data_type: str = "FP16") -> set[str]:
        config = TensorRtConfig(data_type=data_type, layers_precision=list(entries))  # type: ignore[arg-type]
        made = typed(model, config, pytest.fail).model
        types = typed_tensors(made)
        return {n.name for n in made.graph.node if types[n.output[0]] == TensorProto.FLOAT16}

    everything = half()
    layer = "/encoder/pan_blocks.0/conv1/conv/Conv"
    assert layer in everything
    assert layer not in half(f"{layer}:fp32")
    assert layer not in half("encoder.pan_blocks:fp32")
    assert layer not in half("encoder.*.conv:fp32")
    assert layer in half("encoder.*:fp32", f"{layer}:fp16")  # the last one counts
    assert half(f"{layer}:fp16", data_type="FP32") >= {layer}
    assert "/backbone/conv1/Conv" not in half(f"{layer}:fp16", data_type="FP32")
    assert half(data_type="FP32") == set()
    with pytest.raises(
        RequestError, match=r"layers_precision\[1\].*'encoder.pan_block.0'.*mean 'enc"
    ):
        half("encoder.*:fp32", "encoder.pan_block.0:fp32")
