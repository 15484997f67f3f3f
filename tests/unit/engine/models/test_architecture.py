"""The detector that weights are of, from the names and shapes of their tensors."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, get_args

import pytest
import torch
from layout_support import LAYOUTS, hugging_face
from model_support import NUM_CLASSES, small_config, small_model
from torch import Tensor

from rtdetr_slurm.engine.models.keymap import unpacked
from rtdetr_slurm.spec import in_lines
from rtdetr_slurm.spec.architecture import describe, weights_problems
from rtdetr_slurm.spec.backbones import level_layer
from rtdetr_slurm.spec.model import Backbone
from rtdetr_slurm.spec.tensor_names import hugging_face_name


def shapes_of(state: Mapping[str, Tensor]) -> dict[str, tuple[int, ...]]:
    return {name: tuple(tensor.shape) for name, tensor in state.items()}


def problems(state: Mapping[str, Tensor], classes: int | None = NUM_CLASSES, **changes: Any) -> str:
    described = describe(shapes_of(state))
    return in_lines(weights_problems(small_config(**changes), classes, described, "w.pth"))


@pytest.fixture(scope="module")
def state() -> dict[str, Tensor]:
    return small_model().state_dict()


@pytest.mark.parametrize("layout", LAYOUTS)
def test_every_layout_shows_the_same(state: dict[str, Tensor], layout: str) -> None:
    there = LAYOUTS[layout][0](state)
    assert problems(there) == ""
    assert describe(shapes_of(there)) == describe(shapes_of(state))


@pytest.mark.parametrize("backbone", get_args(Backbone))
def test_backbones(backbone: str) -> None:
    with torch.device("meta"):
        whole = small_model(backbone=backbone)
    described = describe(shapes_of(whole.state_dict())).model
    # TAO's two names of each FAN are one backbone.
    assert {short(name) for name in described["backbone"]} == {short(backbone)}
    assert described["return_interm_indices"] == [1, 2, 3]
    assert problems(whole.state_dict(), backbone=backbone) == ""
    alone = describe(shapes_of(whole.backbone.state_dict()), part="backbone")
    assert alone.model == {"backbone": described["backbone"]}


def short(backbone: str) -> str:
    return re.sub(r"_\d+_p4_hybrid$", "", backbone)


@pytest.mark.parametrize("backbone", ["fan_tiny", "efficientvit_b0", "convnextv2_atto"])
def test_stages_that_are_read(backbone: str) -> None:
    levels: dict[str, Any] = {
        "return_interm_indices": [0, 1],
        "feat_strides": [4, 8],
        "num_feature_levels": 2,
        "feat_channels": [32, 32],
        "use_encoder_idx": [1],
        "backbone": backbone,
    }
    with torch.device("meta"):
        there = small_model(**levels).state_dict()
    assert any(".levels." in name for name in there) == (level_layer(backbone) is not None)
    assert describe(shapes_of(there)).model["return_interm_indices"] == [0, 1]


def test_a_backbone_of_which_not_all_is_there_may_be_several() -> None:
    levels: dict[str, Any] = {
        "return_interm_indices": [0, 1],
        "feat_strides": [4, 8],
        "num_feature_levels": 2,
        "feat_channels": [32, 32],
        "use_encoder_idx": [1],
        "backbone": "resnet_50_vd",
    }
    with torch.device("meta"):
        there = small_model(**levels).state_dict()
    assert describe(shapes_of(there)).model["backbone"] == ("resnet_50_vd", "resnet_101_vd")
    assert problems(there, **{**levels, "backbone": "resnet_101_vd"}) == ""


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"backbone": "resnet_34_vd"}, "backbone: found resnet_34_vd; w.pth has resnet_18_vd"),
        ({"hidden_dim": 64}, "hidden_dim: found 64; w.pth has 32; allowed: the same"),
        ({"feat_channels": [64] * 3}, "feat_channels: found [64, 64, 64]; w.pth has [32, 32, 32]"),
        ({"dec_layers": 2}, "dec_layers: found 2; w.pth has 3"),
        ({"enc_layers": 2}, "enc_layers: found 2; w.pth has 1"),
        ({"dim_feedforward": 64}, "dim_feedforward: found 64; w.pth has 48"),
        ({"expansion": 1.0}, "expansion: found 1.0; w.pth has 0.5"),
        ({"depth_mult": 2}, "depth_mult: found 2; w.pth has 1"),
        (
            {"return_interm_indices": [0, 1, 2]},
            "return_interm_indices: found [0, 1, 2]; w.pth has [1, 2, 3]",
        ),
    ],
    ids=str,
)
def test_contradictions_name_both(
    state: dict[str, Tensor], changes: dict[str, Any], message: str
) -> None:
    assert problems(state, **changes).startswith(f"model.{message}")


def test_what_may_differ(state: dict[str, Tensor]) -> None:
    assert problems(state, num_queries=5, num_select=5, eval_idx=0, dn_number=0) == ""


def test_what_shapes_do_not_show_is_in_the_files_spec(state: dict[str, Tensor]) -> None:
    spec = {"model": {"nheads": 8, "enc_act": "gelu", "num_queries": 300}}
    described = describe(shapes_of(state), spec)
    changed = small_config(nheads=4, enc_act="relu")
    assert in_lines(weights_problems(changed, None, described, "w.pth")).splitlines() == [
        "model.nheads: found 4; w.pth has 8; allowed: the same",
        "model.enc_act: found 'relu'; w.pth has 'gelu'; allowed: the same",
    ]


def test_classes(state: dict[str, Tensor]) -> None:
    assert "num_classes: found 4; w.pth has class heads for 5 classes; allowed: 5" in (
        problems(state, 4)
    )
    assert problems(state, None) == ""
    coco = {**state, "decoder.enc_score_head.weight": torch.zeros(80, 32)}
    assert "count COCO's 80 classes from 0 to 79" in problems(coco, 91)


def test_other_numbers_of_points(state: dict[str, Tensor]) -> None:
    name = "decoder.decoder.layers.0.cross_attn.sampling_offsets.weight"
    found = problems({**state, name: torch.zeros(8 * 9 * 2, 32)})
    assert found.startswith("model: w.pth samples 9 points over 3 levels")


def test_something_else_altogether() -> None:
    found = problems({"backbone.stages.0.conv.weight": torch.zeros(3)})
    assert found == (
        "model.backbone: found resnet_18_vd; w.pth has one that this version does not have; "
        "allowed: the same"
    )
    odd = {"encoder.input_proj.0.conv.weight": torch.zeros(()), "decoder.x": torch.zeros(2)}
    assert problems(odd) == ""


@pytest.mark.parametrize("backbone", ["resnet_18_vd", "resnet_50_vd"])
def test_names_are_translated_back(backbone: str) -> None:
    with torch.device("meta"):
        own = small_model(backbone=backbone).state_dict()
    assert {*map(hugging_face_name, unpacked(own))} == {*hugging_face(own)}
