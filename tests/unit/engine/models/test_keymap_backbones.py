"""Published weights of backbones load, whoever has named them, and what is not there is said."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

import pytest
import timm
import torch
import torchvision
from layout_support import State, renamed
from model_support import small_config, small_model
from safetensors.torch import save_file
from torch import nn

from rtdetr_slurm.engine.models.keymap import load_weights
from rtdetr_slurm.engine.models.weights import LoadReport
from rtdetr_slurm.errors import RequestError
from rtdetr_slurm.spec import in_lines
from rtdetr_slurm.spec.architecture import describe, weights_problems
from rtdetr_slurm.spec.backbones import level_layer

# ConvNeXt's and EdgeNeXt's authors, and TAO.
CONVNEXT_RULES = [
    (r"^stem\.", "downsample_layers.0."),
    (r"^stages\.(\d)\.downsample\.", r"downsample_layers.\1."),
    (r"^(stages\.\d)\.blocks\.", r"\1."),
    (r"\.conv_dw\.", ".dwconv."),
    (r"\.mlp\.grn\.weight", ".grn.gamma"),
    (r"\.mlp\.grn\.bias", ".grn.beta"),
    (r"\.mlp\.fc(\d)\.", r".pwconv\1."),
    (r"^head\.norm\.", "norm."),
    (r"^head\.fc\.", "head."),
]
EFFICIENTVIT_B_RULES = [
    (r"^stem\.in_conv\.", "input_stem.op_list.0."),
    (r"^stem\.res0\.", "input_stem.op_list.1."),
    (r"^(stages\.\d)\.blocks\.", r"\1.op_list."),
]
EFFICIENTVIT_L_RULES = [
    (r"^stem\.in_conv\.", "stages.0.op_list.0."),
    (r"^stem\.res0\.", "stages.0.op_list.1."),
    *((rf"^stages\.{n}\.blocks\.", rf"stages.{n + 1}.op_list.") for n in (3, 2, 1, 0)),
]


def convnext_authors(state: State) -> State:
    """Linear layers where timm's small ones have 1x1 convolutions; GRN's have four sides."""
    names = renamed(state, CONVNEXT_RULES)
    for name, value in names.items():
        if ".grn." in name:
            names[name] = value[None, None, None]
        elif ".pwconv" in name and value.dim() == 4:
            names[name] = value[:, :, 0, 0]
    return names


def tao_autoencoder(state: State) -> State:
    encoder = {f"model.encoder.{name}": value for name, value in convnext_authors(state).items()}
    return encoder | {"model.decoder.0.weight": torch.zeros(3), "model.mask_token": torch.zeros(3)}


def efficientvit_authors(state: State) -> State:
    large = any(".spatial_conv." in name for name in state)
    names = renamed(state, EFFICIENTVIT_L_RULES if large else EFFICIENTVIT_B_RULES)
    return {f"model.{name}": value for name, value in names.items()}


def same(state: State) -> State:
    return state


WHOLE: dict[str, Callable[[], nn.Module]] = {
    "convnext_tiny": lambda: timm.create_model("convnext_tiny"),
    "convnextv2_atto": lambda: timm.create_model("convnextv2_atto"),
    "efficientvit_b0": lambda: timm.create_model("efficientvit_b0"),
    "efficientvit_l0": lambda: timm.create_model("efficientvit_l1", depths=(1, 1, 1, 4, 4)),
    "edgenext_x_small": lambda: timm.create_model("edgenext_x_small"),
}


@pytest.mark.parametrize(
    ("backbone", "write"),
    [
        *((name, same) for name in WHOLE),
        *((name, efficientvit_authors) for name in ("efficientvit_b0", "efficientvit_l0")),
        *((name, convnext_authors) for name in ("convnextv2_atto", "edgenext_x_small")),
        ("convnextv2_atto", tao_autoencoder),
    ],
)
def test_whole_networks(backbone: str, write: Callable[[State], State], tmp_path: Path) -> None:
    """What comes out is the network's own output, before what follows the stages here."""
    torch.manual_seed(1)
    whole = WHOLE[backbone]().eval()
    report, model = loaded(write(whole.state_dict()), backbone, tmp_path)
    assert report.loaded == sum(not name.startswith("levels.") for name in model.state_dict())
    levels = level_layer(backbone) is not None
    assert levels == any("backbone.levels.1.weight: not in the file" in s for s in report.skipped)

    x = torch.rand(1, 3, 64, 96)
    with torch.no_grad():
        expected = whole.forward_intermediates(x, intermediates_only=True)[-3:]
        model.eval()
        for level in getattr(model, "levels", None) or ():
            model.levels[level] = nn.Identity()
        for found, value in zip(model(x), expected, strict=True):
            torch.testing.assert_close(found, value)


def loaded(state: State, backbone: str, folder: Path) -> tuple[LoadReport, nn.Module]:
    shapes = {name: tuple(value.shape) for name, value in state.items()}
    described = describe(shapes, part="backbone")
    config = small_config(backbone=backbone)
    assert in_lines(weights_problems(config, None, described, "it")) == "", "submit refuses it"
    save_file({name: value.contiguous() for name, value in state.items()}, folder / "w.safetensors")
    model = small_model(seed=2, backbone=backbone)
    report = load_weights(model, folder / "w.safetensors", part="backbone")
    return report, model.backbone


def test_torchvision(tmp_path: Path) -> None:
    torch.manual_seed(1)
    whole = torchvision.models.convnext_tiny().eval()
    _, model = loaded(whole.state_dict(), "convnext_tiny", tmp_path)
    x = torch.rand(1, 3, 64, 96)
    with torch.no_grad():
        expected = whole.features(x)
        for level in model.levels:
            model.levels[level] = nn.Identity()
        torch.testing.assert_close(model.eval()(x)[-1], expected)


FLATTENED = [(r"^stem_", "stem."), (r"^stages_", "stages.")]
TAO_RULES = {
    "convnext_tiny": [
        *CONVNEXT_RULES,
        *((rf"^levels\.{n}\.", f"conv_{256 * 2**n}.") for n in (1, 2, 3)),
    ],
    "efficientvit_b0": [*EFFICIENTVIT_B_RULES, (r"^levels\.", "norm")],
    "fan_tiny": [(r"^levels\.", "out_norm")],
}


@pytest.mark.parametrize("backbone", TAO_RULES)
def test_detectors_of_tao(backbone: str, tmp_path: Path) -> None:
    """The whole detector, as its programs name it."""
    source = small_model(seed=1, backbone=backbone)
    inside = renamed(source.backbone.state_dict(), [*FLATTENED, *TAO_RULES[backbone]])
    assert not any(re.search(r"stages_|levels", name) for name in inside)
    state = source.state_dict()
    whole = {name: value for name, value in state.items() if not name.startswith("backbone.")}
    whole |= {f"backbone.{name}": value for name, value in inside.items()}
    theirs = {f"model.model.{name}": value for name, value in whole.items()}
    torch.save({"state_dict": theirs, "tao_model": "rtdetr"}, tmp_path / "tao.pth")
    model = small_model(seed=2, backbone=backbone)
    report = load_weights(model, tmp_path / "tao.pth", part="detector")
    assert report.skipped == ()
    for name, value in model.state_dict().items():
        assert torch.equal(value, state[name]), name


def test_another_size_of_the_same_family(tmp_path: Path) -> None:
    state = timm.create_model("convnextv2_femto").state_dict()
    torch.save(state, tmp_path / "w.pth")
    with pytest.raises(
        RequestError, match=r"of another shape[\s\S]*stem_0\.weight: \[48, 3, 4, 4\]"
    ):
        load_weights(small_model(backbone="convnextv2_atto"), tmp_path / "w.pth", part="backbone")
    described = describe({name: tuple(t.shape) for name, t in state.items()}, part="backbone")
    assert described.model == {"backbone": ("convnextv2_femto",)}
