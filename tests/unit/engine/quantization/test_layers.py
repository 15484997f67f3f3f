"""Quantized layers: what they compute, what a checkpoint keeps of them, and what ONNX makes of
them."""

from __future__ import annotations

import copy
from functools import partial
from pathlib import Path
from typing import Any

import onnx
import pytest
import torch
from model_support import SMALLEST
from onnx_support import METADATA, tiny_detector
from torch import Tensor, nn

from rtdetr_slurm.engine.models import RTDETR
from rtdetr_slurm.engine.onnx_graph import foreign_operators, save, trace
from rtdetr_slurm.engine.quantization.detector import (
    alone,
    described,
    layers_of,
    quantized,
    rebuilt,
)
from rtdetr_slurm.engine.quantization.layers import (
    Quantized,
    encode,
    formats_of,
    per_channel,
    scale_of,
)
from rtdetr_slurm.engine.quantization.libraries import Decided
from rtdetr_slurm.engine.quantization.measure import movement, multiply_adds, sensitivities
from rtdetr_slurm.errors import RequestError
from rtdetr_slurm.runs.checkpoint_record import Quantization, QuantizedLayer
from rtdetr_slurm.spec.quantization import LayerFormat
from rtdetr_slurm.vision.onnx_runtime import open_onnx
from rtdetr_slurm.vision.parity import differences_of


def decided(model: nn.Module, layers: dict[str, LayerFormat]) -> dict[str, Decided]:
    """The largest magnitude of the weights; activations up to 4."""
    found = {}
    for name, formats in layers.items():
        weight = model.get_submodule(name).weight
        assert isinstance(weight, Tensor)
        scale = scale_of(weight.detach().flatten(1).abs().amax(1), formats.weights)
        codes = encode(weight.detach(), per_channel(scale, weight), formats.weights)
        given = formats.activations
        found[name] = Decided(codes, scale, given and scale_of(torch.tensor(4.0), given))
    return found


def detectors(
    formats: LayerFormat, pattern: str = "encoder.fpn", **changes: Any
) -> tuple[RTDETR, RTDETR]:
    """A fused detector, and the same with quantized layers."""
    model = tiny_detector(4, **changes).fuse()
    layers = {name: formats for name in layers_of(model) if name.startswith(pattern)}
    return model, quantized(model, layers, decided(model, layers))


@pytest.mark.parametrize(("number", "step"), [("int8", 1 / 127), ("fp8_e4m3fn", 1 / 8)])
def test_weights_are_the_nearest_codes(number: str, step: float) -> None:
    plain = nn.Conv2d(4, 6, 3, stride=2, padding=1, groups=2)
    layer = Quantized(plain, LayerFormat(number))
    one = decided(nn.ModuleDict({"a": plain}), {"a": LayerFormat(number)})["a"]
    layer.weight, layer.scale = one.codes, one.scale
    images = torch.randn(2, 4, 8, 8)
    largest = plain.weight.detach().flatten(1).abs().amax(1)
    values = one.codes.float() * per_channel(one.scale, one.codes)
    assert ((values - plain.weight).abs() <= per_channel(largest, values) * step).all()
    expected = nn.functional.conv2d(images, values, plain.bias, 2, 1, 1, 2)
    torch.testing.assert_close(layer(images), expected)
    layer.double().float()  # codes stay codes
    assert layer.weight.dtype == one.codes.dtype
    torch.testing.assert_close(layer(images), expected)


def test_activations_are_rounded_to_the_scale_and_cut_off() -> None:
    layer = Quantized(nn.Linear(2, 2, bias=False), LayerFormat("int8", "int8"))
    layer.weight, layer.scale = torch.eye(2, dtype=torch.int8), torch.tensor([1.0, 1.0])
    layer.input_scale = torch.tensor(0.5)
    expected = torch.tensor([0.5, 63.5])  # 0.6 / 0.5 is nearest to 1; 127 is the largest code
    assert layer(torch.tensor([0.6, 1000.0])).tolist() == expected.tolist()
    assert layer(torch.tensor([0.25, -1000.0])).tolist() == [0.0, -64.0]  # ties to even


@pytest.mark.parametrize(
    ("formats", "opset"),
    [
        (LayerFormat("int8", "int8"), 17),
        (LayerFormat("fp8_e4m3fn", "fp8_e4m3fn"), 19),
        (LayerFormat("fp8_e5m2"), 19),
    ],
)
def test_onnx_computes_the_same(tmp_path: Path, formats: LayerFormat, opset: int) -> None:
    """With Q/DQ nodes of ONNX's own, and weights of one byte each."""
    model, other = detectors(formats)
    assert formats_of(other) == {formats.weights}
    path = tmp_path / "rtdetr.onnx"
    properties = METADATA.properties()
    save(trace(other, (64, 96), batch=None, opset=opset, metadata=properties), path)
    graph = onnx.load(path)
    assert foreign_operators(graph) == []
    kinds = [node.op_type for node in graph.graph.node]
    layers = sum(isinstance(one, Quantized) for one in other.modules())
    assert kinds.count("DequantizeLinear") == layers * (1 if formats.activations is None else 2)
    images = torch.rand(2, 3, 64, 96)
    found = differences_of(other(images), open_onnx(path)(images))
    assert found.quantile(0.9) < 1e-3
    assert movement(model(images), other(images)) > 1e-5  # of the same detector: 0


@pytest.mark.parametrize("backbone", SMALLEST[4:])
def test_every_kind_of_backbone(backbone: str) -> None:
    model, other = detectors(LayerFormat("int8", "int8"), "backbone.", backbone=backbone)
    assert isinstance(other.backbone, type(model.backbone))
    assert sum(isinstance(one, Quantized) for one in other.backbone.modules()) > 9
    images = torch.rand(1, 3, 64, 96)
    assert 1e-6 < movement(model(images), other(images)) < 10


def test_a_checkpoint_builds_the_same_again() -> None:
    model, other = detectors(LayerFormat("int8", "int8"))
    layers = {
        name: one.formats for name, one in other.named_modules() if isinstance(one, Quantized)
    }
    said = Quantization(schema_version=1, library="torchao", spec={}, layers=described(layers))
    again = rebuilt(tiny_detector(4), said, Path("q.pth"))
    again.load_state_dict(other.state_dict())
    images = torch.rand(1, 3, 64, 64)
    assert torch.equal(again(images)["pred_logits"], other(images)["pred_logits"])
    assert not torch.equal(again(images)["pred_logits"], model(images)["pred_logits"])
    unknown = {name: QuantizedLayer(weights="int4", activations=None) for name in layers}
    with pytest.raises(RequestError, match=r"has a layer encoder\.fpn_blocks\.0\S* \(int4\)"):
        rebuilt(tiny_detector(4), {**said, "layers": unknown}, Path("q.pth"))


def test_work_and_sensitivity_are_those_of_the_layers() -> None:
    model, other = detectors(LayerFormat("int8", "int8"))
    images = torch.rand(2, 3, 64, 64)
    total, counts = multiply_adds(model, images[:1])
    conv = model.get_submodule("encoder.fpn_blocks.0.conv1.conv")
    assert isinstance(conv, nn.Conv2d)
    assert counts["encoder.fpn_blocks.0.conv1.conv"] == conv.weight.numel() * 16 * 16
    assert 0.9 * total < sum(counts.values()) < total
    assert "decoder.enc_output.proj" in counts  # it only lends its weights
    assert "decoder.dec_score_head.0" not in counts  # the last layer alone is read out

    before = copy.deepcopy(model.state_dict())
    reference = model(images)
    names = [name for name, one in other.named_modules() if isinstance(one, Quantized)]
    one = partial(alone, model, other)
    found = sensitivities(reference, images, names[:2], one, lambda: False)
    assert all(value > 0 for value in found.values())
    assert list(found) == names[:2]
    assert model.state_dict().keys() == before.keys()
    assert sensitivities(reference, images, names, one, lambda: True) == {}
    assert movement(reference, reference) == 0
