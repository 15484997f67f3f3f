"""The model as built from the spec: sizes, freezing, checkpointing, fusing."""

from __future__ import annotations

import subprocess
import sys
from typing import Any

import pytest
import torch
from model_support import (
    NUM_CLASSES,
    SMALLEST,
    images,
    small_config,
    small_model,
    step,
    targets,
    without_gradient,
)
from torch import nn

from rtdetr_slurm.engine.models import build_model
from rtdetr_slurm.engine.models.backbone import build_backbone
from rtdetr_slurm.engine.models.layers import ACTIVATIONS, FrozenBatchNorm2d
from rtdetr_slurm.errors import RequestError
from rtdetr_slurm.spec.model import ModelConfig
from rtdetr_slurm.spec.sizes import count_cells

PUBLISHED = {
    18: ({"expansion": 0.5, "dec_layers": 3}, 20_184_464),
    34: ({"expansion": 0.5, "dec_layers": 4}, 31_441_668),
    50: ({}, 42_891_372),  # with the stem, which the published training keeps frozen
    101: ({"feat_channels": [384] * 3, "dim_feedforward": 2048}, 76_556_268),
}


@pytest.mark.parametrize("depth", PUBLISHED)
def test_parameter_counts_are_the_published_ones(depth: int) -> None:
    changes, expected = PUBLISHED[depth]
    cfg = ModelConfig.model_validate({"backbone": f"resnet_{depth}_vd", **changes})
    with torch.device("meta"):
        model = build_model(cfg, 80, freeze_norm=depth >= 50)
    assert sum(p.numel() for p in model.parameters()) == expected


def test_activations_are_those_that_the_spec_offers() -> None:
    for act in ACTIVATIONS:
        assert small_config(act=act, enc_act=act).act == act


@pytest.mark.parametrize("backbone", SMALLEST)
@torch.no_grad()
def test_every_backbone_gives_its_strides_and_fuses_exactly(backbone: str) -> None:
    model = small_model(backbone=backbone).double().eval()
    scramble_norms(model)
    x = images(1, 64, 96).double()
    maps = model.backbone(x)
    sizes = [(64 // stride, 96 // stride) for stride in model.backbone.strides]
    assert [tuple(m.shape[-2:]) for m in maps] == sizes
    assert [m.shape[1] for m in maps] == model.backbone.channels

    fused = model.fuse()
    left = [name for name, m in fused.named_modules() if isinstance(m, nn.BatchNorm2d)]
    # In these, some norms follow no convolution.
    assert bool(left) == (backbone in ("edgenext_xx_small_bn_hs", "fan_tiny"))
    assert all(name.startswith("backbone.") for name in left)
    found = fused(x)
    for name, value in model(x).items():
        torch.testing.assert_close(found[name], value, rtol=0, atol=1e-10)
    assert any(isinstance(m, nn.BatchNorm2d) for m in model.modules()), "the original was changed"


@torch.no_grad()
def scramble_norms(model: nn.Module) -> None:
    """Untrained norms are nearly the identity, and scaled branches nearly nothing: folding them
    proves nothing."""
    generator = torch.Generator().manual_seed(3)
    for name, parameter in model.named_parameters():
        if "gamma" in name:
            parameter.normal_(generator=generator)
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            for value in (module.weight, module.running_var):
                value.uniform_(0.5, 1.5, generator=generator)
            for value in (module.bias, module.running_mean):
                value.normal_(0, 0.2, generator=generator)


@torch.no_grad()
def test_fusing_frozen_and_fused_models() -> None:
    model = small_model(freeze_norm=True).double().eval()
    x = images(1).double()
    expected = model(x)["pred_logits"]
    fused = model.fuse()
    torch.testing.assert_close(fused(x)["pred_logits"], expected, rtol=0, atol=1e-10)
    torch.testing.assert_close(fused.fuse()(x)["pred_logits"], expected, rtol=0, atol=1e-10)


def test_vd_backbones_need_no_timm() -> None:
    code = (
        "import sys; from rtdetr_slurm.engine.models import build_model; "
        "from rtdetr_slurm.spec.model import ModelConfig; "
        "build_model(ModelConfig.model_validate({'backbone': 'resnet_18_vd'}), 3); "
        "assert 'timm' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


@pytest.mark.parametrize(
    "changes",
    [
        {"return_interm_indices": [2, 3], "feat_strides": [16, 32], "feat_channels": [32, 32]},
        {"return_interm_indices": [1, 2], "feat_strides": [8, 16], "feat_channels": [32, 32]},
        {
            "return_interm_indices": [0, 1, 2, 3],
            "feat_strides": [4, 8, 16, 32],
            "feat_channels": [32] * 4,
        },
        {"feat_channels": [64] * 3, "hidden_dim": 32},
        {"expansion": 1.0, "depth_mult": 2, "act": "relu", "enc_act": "silu"},
        {"use_encoder_idx": [1, 2], "enc_layers": 2, "nheads": 4, "dropout_ratio": 0.1},
        {"use_encoder_idx": []},
        {"dn_number": 0},
        {"loss_types": ["vfl"]},
        {"loss_types": ["boxes"]},
        {"aux_loss": False},
        {"dec_layers": 1},
    ],
    ids=str,
)
def test_options_train_and_every_parameter_gets_a_gradient(changes: dict[str, Any]) -> None:
    levels = len(changes.get("feat_channels", [0, 0, 0]))
    if "return_interm_indices" in changes:
        changes = {**changes, "num_feature_levels": levels, "use_encoder_idx": [levels - 1]}
    model, cfg = small_model(**changes), small_config(**changes)
    outputs, terms = step(model, targets(3, 1), cfg)
    assert all(torch.isfinite(term) for term in terms.values())
    assert without_gradient(model) == []
    assert outputs["set_logits"].shape == (cfg.dec_layers + 1, 2, 12, NUM_CLASSES)
    assert ("dn_logits" in outputs) == (cfg.dn_number > 0)


@pytest.mark.parametrize("backbone", SMALLEST[4:])
def test_backbones_train_and_every_parameter_gets_a_gradient(backbone: str) -> None:
    model, cfg = small_model(backbone=backbone), small_config(backbone=backbone)
    before = {name: value.clone() for name, value in model.backbone.named_buffers()}
    _, terms = step(model, targets(3, 1), cfg)
    assert all(torch.isfinite(term) for term in terms.values())
    assert without_gradient(model) == []
    for name, value in model.backbone.named_buffers():
        assert not torch.equal(value, before[name]), name


@pytest.mark.parametrize("backbone", [name for name in SMALLEST[4:] if name != "convnext_tiny"])
@torch.no_grad()
def test_stages_of_backbones(backbone: str) -> None:
    """Any may be read, where there are not three always, and what follows the last is not built."""
    whole = build_backbone(backbone, [0, 1, 2, 3]).eval()
    maps = whole(images())
    assert whole.strides == [4, 8, 16, 32]
    for stages in ([0], [2], [0, 1]):
        part = build_backbone(backbone, stages).eval()
        state = whole.state_dict()
        part.load_state_dict({name: state[name] for name in part.state_dict()})
        assert part.strides == [whole.strides[stage] for stage in stages]
        for found, stage in zip(part(images()), stages, strict=True):
            torch.testing.assert_close(found, maps[stage])
    assert sum(p.numel() for p in part.parameters()) < sum(p.numel() for p in whole.parameters())


def test_eval_mode_returns_the_predictions_of_layer_eval_idx_alone() -> None:
    model = small_model(eval_idx=1).eval()
    last = small_model(eval_idx=-1).eval()
    with torch.no_grad():
        outputs, of_all = model(images()), last(images())
        cut = small_model(dec_layers=2)
        cut.load_state_dict(model.state_dict(), strict=False)
        expected = cut.eval()(images())
    assert set(outputs) == {"pred_logits", "pred_boxes"}
    assert outputs["pred_boxes"].shape == (2, 12, 4)
    torch.testing.assert_close(outputs["pred_logits"], expected["pred_logits"])
    assert not torch.allclose(outputs["pred_logits"], of_all["pred_logits"])


def test_training_mode_without_targets_has_no_denoising() -> None:
    outputs = small_model().train()(images())
    assert set(outputs) == {"pred_logits", "pred_boxes", "set_logits", "set_boxes"}


def test_frozen_norms_are_constants() -> None:
    model = small_model(freeze_norm=True)
    before = {k: v.clone() for k, v in model.backbone.state_dict().items() if "norm" in k}
    step(model, targets(2, 1), small_config())
    assert before
    for name, value in before.items():
        assert torch.equal(model.backbone.state_dict()[name], value), name
    assert not any("norm" in name for name, _ in model.backbone.named_parameters())


@pytest.mark.parametrize("backbone", ["resnet_18_vd", "resnet_18"])
def test_frozen_norm_equals_batch_norm_in_eval_mode(backbone: str) -> None:
    """Both the folded form in our blocks and the plain one in timm's, values and gradients."""
    from rtdetr_slurm.engine.models.layers import freeze_batch_norm

    plain = small_model(backbone=backbone).backbone.double().eval()
    scramble_norms(plain)
    frozen = small_model(backbone=backbone).backbone.double()
    frozen.load_state_dict(plain.state_dict())
    freeze_batch_norm(frozen)
    x = images(1).double()
    for expected, found in zip(plain(x), frozen(x), strict=True):
        torch.testing.assert_close(found, expected)
    plain(x)[-1].square().mean().backward()
    frozen(x)[-1].square().mean().backward()
    grads = {name: p.grad for name, p in plain.named_parameters()}
    for name, parameter in frozen.named_parameters():
        torch.testing.assert_close(parameter.grad, grads[name])


@pytest.mark.parametrize("backbone", ["resnet_18_vd", "resnet_18"])
def test_frozen_stem(backbone: str) -> None:
    model = build_model(small_config(backbone=backbone), NUM_CLASSES, freeze_stem=True)
    trained = {name for name, p in model.backbone.named_parameters() if p.requires_grad}
    assert trained
    assert all(name.startswith(("res_layers", "layer")) for name in trained)
    stem = [m for part in model.backbone.stem() for m in part.modules()]
    assert any(isinstance(m, FrozenBatchNorm2d) for m in stem)
    assert not any(isinstance(m, nn.BatchNorm2d) for m in stem)
    before = {k: v.clone() for k, v in model.backbone.state_dict().items()}
    outputs, _ = step(model, targets(1, 1), small_config())
    assert outputs["pred_boxes"].requires_grad
    for name, value in model.backbone.state_dict().items():
        if not name.startswith(("res_layers", "layer")):
            assert torch.equal(value, before[name]), name


@pytest.mark.parametrize("backbone", ["resnet_18_vd", "resnet_18", "efficientvit_b0", "fan_tiny"])
def test_train_backbone_false_freezes_weights_and_statistics(backbone: str) -> None:
    model = small_model(backbone=backbone, train_backbone=False)
    before = {k: v.clone() for k, v in model.backbone.state_dict().items()}
    step(model, targets(2, 1), small_config())
    first, again = (model.backbone(images())[-1] for _ in range(2))
    assert torch.equal(first, again)
    assert not any(p.requires_grad for p in model.backbone.parameters())
    assert without_gradient(model) == []
    for name, value in model.backbone.state_dict().items():
        assert torch.equal(value, before[name]), name


@pytest.mark.parametrize(
    "backbone",
    [name for name in SMALLEST if name not in ("resnet_50", "resnet_50_vd", "convnext_tiny")],
)
def test_activation_checkpointing_changes_nothing(backbone: str) -> None:
    """Outputs, gradients and running statistics, which move once and not twice; FAN leaves the same
    branches out again."""
    results = []
    for again in (False, True):
        torch.manual_seed(0)
        cfg = small_config(backbone=backbone)
        model = build_model(cfg, NUM_CLASSES, activation_checkpoint=again)
        torch.manual_seed(7)
        outputs = model.train()(images())
        outputs["set_logits"].square().sum().backward()
        grads = {name: p.grad for name, p in model.named_parameters()}
        results.append((outputs["set_logits"].detach(), model.state_dict(), grads))
    for plain, checkpointed in zip(*results, strict=True):
        torch.testing.assert_close(checkpointed, plain)
    counts = [v for k, v in results[1][1].items() if k.endswith("num_batches_tracked")]
    assert all(int(count) == 1 for count in counts)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_autocast_trains_every_parameter_in_float32_losses(dtype: torch.dtype) -> None:
    model, cfg = small_model(), small_config()
    from rtdetr_slurm.engine.losses import build_criterion

    with torch.autocast("cpu", dtype):
        outputs = model.train()(images(), targets(3, 1))
        terms = build_criterion(cfg)(outputs, targets(3, 1), torch.tensor(4.0))
    assert outputs["set_boxes"].dtype == torch.float32
    assert all(term.dtype == torch.float32 for term in terms.values())
    torch.stack(list(terms.values())).sum().backward()
    assert without_gradient(model) == []
    scoring = model.decoder.enc_output.proj.weight.grad
    assert scoring is not None
    assert scoring.abs().sum() > 0


def test_a_decoder_layer_survives_sums_beyond_float16() -> None:
    from rtdetr_slurm.engine.models.decoder import DecoderLayer

    layer = DecoderLayer(32, 1).half()
    nn.init.constant_(layer.linear2.bias, 60000.0)
    x = torch.full((1, 4, 32), 9.0, dtype=torch.float16)
    layer.norm2.weight.data.fill_(1.0)
    layer.norm2.bias.data.fill_(20000.0)
    boxes = torch.full((1, 4, 4), 0.5, dtype=torch.float16)
    out = layer(x, torch.zeros_like(x), boxes, [torch.zeros(1, 32, 4, 4).half()], None)
    assert torch.isfinite(out).all()


def test_image_sides_must_be_multiples_of_32() -> None:
    with pytest.raises(ValueError, match="multiples of 32, got 64x80"):
        small_model()(images(1, 64, 80))


def test_more_queries_than_cells_are_refused() -> None:
    with pytest.raises(RequestError, match=r"num_queries is 200.*only 126 cells"):
        small_model(num_queries=200)(images())


@pytest.mark.parametrize("stages", [[1, 2, 3], [0, 1]])
def test_the_spec_counts_the_cells_that_queries_are_chosen_from(stages: list[int]) -> None:
    levels = len(stages)
    strides = [4 * 2**stage for stage in stages]
    changes = {"return_interm_indices": stages, "feat_strides": strides}
    changes |= {"num_feature_levels": levels, "feat_channels": [32] * levels}
    changes |= {"use_encoder_idx": [levels - 1]}
    maps = small_model(**changes).backbone(images(1, 64, 96))
    cells = count_cells(small_config(**changes), (64, 96))
    assert cells == sum(one.shape[-2] * one.shape[-1] for one in maps)
    most = small_model(**changes, num_queries=cells).eval()
    assert most(images(1, 64, 96))["pred_logits"].shape[1] == cells
    with pytest.raises(RequestError, match=f"only {cells} cells"):
        small_model(**changes, num_queries=cells + 1).eval()(images(1, 64, 96))
