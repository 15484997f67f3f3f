"""transformers' config.json: from a spec and back, and what it may not say."""

from __future__ import annotations

from typing import Any, get_args

import pytest

from rtdetr_slurm.errors import RequestError
from rtdetr_slurm.spec.hugging_face import config_of, detector_of, image_processor_of, image_size_of
from rtdetr_slurm.spec.model import Backbone, ModelConfig

R18 = {
    "expansion": 0.5,
    "dec_layers": 3,
    "num_queries": 200,
    "num_select": 200,
    "vfl_loss_coef": 2.0,
}


def written(**changes: Any) -> dict[str, Any]:
    return config_of(ModelConfig(**changes), 3, {1: "cat"}, constant_norms=True)


RESNETS = [name for name in get_args(Backbone) if name.startswith("resnet")]


@pytest.mark.parametrize("backbone", RESNETS)
def test_there_and_back(backbone: str) -> None:
    model = ModelConfig(backbone=backbone, **R18)
    config = config_of(model, 3, {1: "cat"}, constant_norms=False)
    assert config["id2label"] == {"0": "LABEL_0", "1": "cat", "2": "LABEL_2"}
    found = detector_of(config, (320, 640))
    assert found.experiment.model == model
    assert found.experiment.dataset.num_classes == 3
    assert found.experiment.dataset.augmentation.eval_spatial_size == [320, 640]
    assert found.classes == {1: "cat"}


def test_what_transformers_leaves_out_is_its_default() -> None:
    backbone = {"model_type": "rt_detr_resnet", "out_indices": [2, 3, 4]}
    found = detector_of({"model_type": "rt_detr_v2", "backbone_config": backbone})
    assert found.experiment.model == ModelConfig(backbone="resnet_50_vd")
    assert found.experiment.dataset.num_classes == 2
    assert found.classes == {}


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"model_type": "detr"}, "model_type: found 'detr'; allowed: rt_detr, rt_detr_v2"),
        ({"decoder_method": "discrete"}, "decoder_method: found 'discrete'; allowed: 'default'"),
        ({"decoder_n_points": 3}, "decoder_n_points: found 3; allowed: 4"),
        ({"decoder_offset_scale": 1.0}, "decoder_offset_scale: found 1.0; allowed: 0.5"),
        ({"learn_initial_query": True}, "learn_initial_query: found true; allowed: false"),
        ({"num_feature_levels": 4}, "num_feature_levels: found 4; allowed: 3"),
        ({"decoder_in_channels": [256, 256, 384]}, "decoder_in_channels: found"),
        ({"backbone_config": {"model_type": "swin"}}, "backbone_config: this is no ResNet of 18"),
        ({"backbone_config": None}, "backbone_config: this is no ResNet"),
        ({"id2label": {"1": "cat"}}, "id2label: allowed: a name for each number from 0 on"),
        ({"num_queries": "many"}, "model.num_queries: found 'many'"),
        ({"encoder_attention_heads": 3}, "model.feat_channels: found 256; allowed: multiples of"),
    ],
)
def test_what_is_refused_by_name(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(RequestError) as error:
        detector_of({**written(), **changes})
    assert message in str(error.value)


def test_all_that_is_refused_is_said_at_once() -> None:
    with pytest.raises(RequestError) as error:
        detector_of({**written(), "decoder_ffn_dim": 512, "layer_norm_eps": 1e-6})
    assert len(str(error.value).splitlines()) == 2


def test_what_transformers_does_not_have() -> None:
    with pytest.raises(RequestError, match=r"model\.depth_mult: found 2"):
        written(depth_mult=2)
    with pytest.raises(RequestError, match=r"model\.backbone: found convnext_tiny"):
        written(backbone="convnext_tiny")


def test_image_processors() -> None:
    ours = image_processor_of((320, 640))
    assert image_size_of(ours) == (320, 640)
    assert image_size_of({**ours, "size": {"shortest_edge": 800}}) is None
    for name, value in (("do_normalize", True), ("do_rescale", False), ("rescale_factor", 1.0)):
        with pytest.raises(RequestError, match=f"{name}: found"):
            image_size_of({**ours, name: value})
