"""Whole detectors in ONNX Runtime beside PyTorch: backbones, sizes, batches, opsets."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import onnx
import pytest
import torch
from model_support import SMALLEST
from onnx_support import exported, outputs, scramble

from rtdetr_slurm.engine.models import RTDETR, build_model
from rtdetr_slurm.spec.export import OPSETS
from rtdetr_slurm.spec.model import ModelConfig
from rtdetr_slurm.vision.onnx_runtime import open_onnx
from rtdetr_slurm.vision.parity import SAME, differences_of


@pytest.fixture(autouse=True)
def float32() -> Iterator[None]:
    """What runtimes compute with; the other tests of this folder are about float64."""
    before = torch.get_default_dtype()
    torch.set_default_dtype(torch.float32)
    yield
    torch.set_default_dtype(before)


def detector(backbone: str) -> RTDETR:
    torch.manual_seed(0)
    model = build_model(ModelConfig(backbone=backbone, dec_layers=3), num_classes=4).eval()
    scramble(model)
    return model


@pytest.mark.parametrize(
    ("backbone", "size", "batch", "opset"),
    [
        ("resnet_18_vd", (640, 640), None, OPSETS[0]),
        ("resnet_50_vd", (480, 800), 3, OPSETS[-1]),
        ("resnet_50", (320, 320), 1, OPSETS[0]),
        ("resnet_18", (320, 320), None, OPSETS[-1]),
    ],
)
def test_the_same_detections(
    tmp_path: Path, backbone: str, size: tuple[int, int], batch: int | None, opset: int
) -> None:
    """But for the few whose place at the end of the ranking hangs on the last bit."""
    model = detector(backbone)
    path = exported(tmp_path, model, size, batch, opset)
    assert onnx.load(path, load_external_data=False).opset_import[0].version == opset
    runtime = open_onnx(path)
    for count in (1, 3):
        generator = torch.Generator().manual_seed(count)
        images = torch.rand(count, 3, *size, generator=generator)
        expected, found = outputs(model, images), runtime(images)
        assert found["pred_logits"].shape == (count, 300, 4)
        differences = differences_of(expected, found)
        assert (differences > SAME).float().mean() < 0.01
        assert differences.median() < 1e-5


@pytest.mark.parametrize("backbone", SMALLEST[4:])
def test_kinds_of_backbones(tmp_path: Path, backbone: str) -> None:
    torch.manual_seed(0)
    small = {"feat_channels": [32] * 3, "hidden_dim": 32, "num_queries": 20, "num_select": 20}
    config = ModelConfig.model_validate({"backbone": backbone, "dec_layers": 1, **small})
    model = build_model(config, num_classes=4).eval()
    scramble(model)
    runtime = open_onnx(exported(tmp_path, model, (64, 96)))
    images = torch.rand(2, 3, 64, 96)
    expected, found = outputs(model, images), runtime(images)
    for name, value in expected.items():
        torch.testing.assert_close(found[name], value, rtol=1e-3, atol=1e-4)


def test_the_folded_form_is_exact_in_float64() -> None:
    """Equal to rounding, so what an export differs by is float32's own."""
    model = detector("resnet_18_vd").double()
    images = torch.rand(2, 3, 320, 480, dtype=torch.float64)
    expected, found = outputs(model, images), outputs(model.fuse(), images)
    for name, value in expected.items():
        assert torch.allclose(value, found[name], rtol=0, atol=1e-9)
