"""Every published tensor layout loads into our model with the same values."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from layout_support import LAYOUTS, State, hugging_face
from model_support import NUM_CLASSES, small_config, small_model
from safetensors.torch import save_file

from rtdetr_slurm.engine.models.keymap import load_weights, own_names

MODELS = ("resnet_18_vd", "resnet_50_vd")


def equal(state: State, own: State, ignore: str = "num_batches_tracked") -> None:
    for name, value in own.items():
        if not name.endswith(ignore):
            assert torch.equal(state[name], value), name


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("backbone", MODELS)
def test_layout(backbone: str, layout: str, tmp_path: Path) -> None:
    write, expected = LAYOUTS[layout]
    source = small_model(seed=1, backbone=backbone).state_dict()
    found, state = own_names(write(source))
    assert found == expected
    assert state.keys() == source.keys()
    equal(state, source)

    torch.save(write(source), tmp_path / "weights.pth")
    model = small_model(seed=2, backbone=backbone)
    report = load_weights(model, tmp_path / "weights.pth", part="detector")
    equal(model.state_dict(), source)
    assert report.loaded == len(source)
    assert report.skipped == ()


def test_names_of_a_real_transformers_model() -> None:
    """The map above is ours; this one is made by transformers itself."""
    from transformers import RTDetrConfig, RTDetrForObjectDetection, RTDetrResNetConfig

    backbone = RTDetrResNetConfig(
        hidden_sizes=[64, 128, 256, 512],
        depths=[2, 2, 2, 2],
        layer_type="basic",
        out_features=["stage2", "stage3", "stage4"],
    )
    config = RTDetrConfig(
        backbone_config=backbone,
        freeze_backbone_batch_norms=False,
        encoder_in_channels=[128, 256, 512],
        encoder_hidden_dim=32,
        encoder_ffn_dim=48,
        d_model=32,
        decoder_in_channels=[32, 32, 32],
        decoder_layers=3,
        hidden_expansion=0.5,
        num_labels=NUM_CLASSES,
    )
    theirs = RTDetrForObjectDetection(config).state_dict()
    own = small_model().state_dict()
    assert theirs.keys() == hugging_face(own).keys()
    layout, state = own_names(theirs)
    assert layout == "Hugging Face"
    assert {n: t.shape for n, t in state.items()} == {n: t.shape for n, t in own.items()}


@pytest.mark.parametrize(
    "container",
    [
        lambda s: {"ema": {"module": s, "updates": 3}, "model": {}},
        lambda s: {"ema": s, "model": {k: torch.zeros_like(v) for k, v in s.items()}, "epoch": 3},
        lambda s: {"ema": None, "model": s, "optimizer": {"state": {}}},
        lambda s: {"state_dict": s, "epoch": 3, "tao_model": "rtdetr"},
        lambda s: {f"module.{k}": v for k, v in s.items()},
    ],
    ids=["official ema", "own with ema", "own without ema", "lightning", "data parallel"],
)
def test_containers(container: Callable[[State], Any], tmp_path: Path) -> None:
    source = small_model(seed=1).state_dict()
    torch.save(container(source), tmp_path / "weights.pth")
    model = small_model(seed=2)
    load_weights(model, tmp_path / "weights.pth", part="detector")
    equal(model.state_dict(), source)


def test_safetensors_and_files_without_counters(tmp_path: Path) -> None:
    source = small_model(seed=1).state_dict()
    without = {k: v for k, v in source.items() if not k.endswith("num_batches_tracked")}
    save_file(without, tmp_path / "weights.safetensors")
    model = small_model(seed=2)
    report = load_weights(model, tmp_path / "weights.safetensors", part="detector")
    assert report.loaded == len(without)
    equal(model.state_dict(), source)


@pytest.mark.parametrize("freeze_norm", [True, False])
def test_frozen_and_trainable_norms_exchange_weights(freeze_norm: bool, tmp_path: Path) -> None:
    source = small_model(seed=1, freeze_norm=not freeze_norm)
    torch.save(source.state_dict(), tmp_path / "weights.pth")
    model = small_model(seed=2, freeze_norm=freeze_norm)
    load_weights(model, tmp_path / "weights.pth", part="detector")
    equal(model.state_dict(), {k: v for k, v in source.state_dict().items() if "num_" not in k})


@pytest.mark.parametrize("prefix", ["", "backbone.", "model.backbone.", "model.model.backbone."])
@pytest.mark.parametrize("backbone", ["resnet_18_vd", "resnet_18"])
def test_backbone_files(backbone: str, prefix: str, tmp_path: Path) -> None:
    source = small_model(seed=1, backbone=backbone).backbone.state_dict()
    content = {prefix + name: value for name, value in source.items()}
    if backbone == "resnet_18":
        content |= {f"{prefix}fc.weight": torch.zeros(10, 512), f"{prefix}fc.bias": torch.zeros(10)}
    torch.save(content, tmp_path / "backbone.pth")
    model = small_model(seed=2, backbone=backbone)
    head = model.decoder.enc_score_head.weight.clone()
    report = load_weights(model, tmp_path / "backbone.pth", part="backbone")
    equal(model.backbone.state_dict(), source)
    assert torch.equal(model.decoder.enc_score_head.weight, head)
    assert len(report.skipped) == (2 if backbone == "resnet_18" else 0)


def test_names_of_a_real_timm_classifier(tmp_path: Path) -> None:
    import timm

    source = timm.create_model("resnet18", pretrained=False).state_dict()
    save_file(source, tmp_path / "timm.safetensors")
    model = small_model(backbone="resnet_18")
    report = load_weights(model, tmp_path / "timm.safetensors", part="backbone")
    assert [line.split(":")[0] for line in report.skipped] == [
        "backbone.fc.bias",
        "backbone.fc.weight",
    ]
    equal(model.backbone.state_dict(), {k: v for k, v in source.items() if "fc." not in k})


@pytest.mark.parametrize("layout", LAYOUTS)
def test_backbone_of_a_detector_file(layout: str, tmp_path: Path) -> None:
    source = small_model(seed=1)
    torch.save(LAYOUTS[layout][0](source.state_dict()), tmp_path / "weights.pth")
    model = small_model(seed=2, dec_layers=1)
    load_weights(model, tmp_path / "weights.pth", part="backbone")
    equal(model.backbone.state_dict(), source.backbone.state_dict())


def test_class_heads_of_another_number_of_classes_are_skipped_and_said(tmp_path: Path) -> None:
    from rtdetr_slurm.engine.models import build_model

    torch.save(build_model(small_config(), 80).state_dict(), tmp_path / "coco.pth")
    model = small_model()
    before = {k: v.clone() for k, v in model.state_dict().items()}
    report = load_weights(model, tmp_path / "coco.pth", part="detector")
    heads = {line.split(":")[0] for line in report.skipped}
    assert len(heads) == 2 * (1 + 3) + 1  # weight and bias of every score head, the embedding
    for name in heads:
        assert torch.equal(model.state_dict()[name], before[name])
    assert "another number of classes ([80, 32] in the file, [5, 32] in the model)" in str(report)
    assert "decoder.dec_score_head.2.bias" in str(report)


@pytest.mark.parametrize(("ours", "theirs"), [(8, 0), (0, 8)])
def test_denoising_embedding_on_one_side_only(ours: int, theirs: int, tmp_path: Path) -> None:
    torch.save(small_model(dn_number=theirs).state_dict(), tmp_path / "weights.pth")
    report = load_weights(small_model(dn_number=ours), tmp_path / "weights.pth", part="detector")
    assert len(report.skipped) == 1
    assert report.skipped[0].startswith("decoder.denoising_class_embed.weight: ")


def test_stages_that_are_not_used_are_skipped_and_said(tmp_path: Path) -> None:
    torch.save(small_model().backbone.state_dict(), tmp_path / "backbone.pth")
    model = small_model(
        return_interm_indices=[0, 1, 2], feat_strides=[4, 8, 16], num_feature_levels=3
    )
    report = load_weights(model, tmp_path / "backbone.pth", part="backbone")
    assert report.skipped
    assert all(line.startswith("backbone.res_layers.3.") for line in report.skipped)
