"""The names that the login node knows against those of the real detector."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from rtdetr_slurm.engine.models import build_model
from rtdetr_slurm.engine.models.features import sample_features
from rtdetr_slurm.spec.bindings import Feature, feature_called
from rtdetr_slurm.spec.experiment import ExperimentConfig
from rtdetr_slurm.spec.model import AVAILABLE_BACKBONES
from rtdetr_slurm.spec.modules import detector_modules, keeps_pretrained_norms, names

VARIANTS: list[dict[str, Any]] = [
    {"backbone": name, "feat_channels": [64] * 3, "hidden_dim": 64} for name in AVAILABLE_BACKBONES
]
VARIANTS += [
    {"backbone": "resnet_18_vd", "train_backbone": False, "dn_number": 0, "expansion": 0.5},
    {"backbone": "resnet_18", "pretrained_backbone_path": "/w.pth", "dec_layers": 2},
    {"backbone": "resnet_50_vd", "pretrained_backbone_path": "/w.pth", "enc_layers": 2},
    {
        "backbone": "resnet_34_vd",
        "num_feature_levels": 2,
        "return_interm_indices": [0, 1],
        "feat_channels": [64, 64],
        "feat_strides": [4, 8],
        "use_encoder_idx": [0, 1],
        "depth_mult": 2,
    },
    {"backbone": "resnet_34", "return_interm_indices": [2], "num_feature_levels": 1,
     "feat_channels": [64], "feat_strides": [16], "use_encoder_idx": []},
]  # fmt: skip


@pytest.mark.parametrize("model", VARIANTS, ids=lambda model: str(model)[:60])
def test_the_spec_knows_every_module_and_parameter(model: dict[str, Any]) -> None:
    experiment = ExperimentConfig.model_validate({"model": model})
    constant = keeps_pretrained_norms(experiment)
    assert constant == ("pretrained_backbone_path" in model)
    with torch.device("meta"):
        real = build_model(experiment.model, 3, freeze_norm=constant, freeze_stem=constant)
    known = dict(names(detector_modules(experiment)))
    assert {name for name, parameter in known.items() if not parameter} == {
        name for name, _ in real.named_modules() if name
    }
    assert {name for name, parameter in known.items() if parameter} == {
        name for name, _ in real.named_parameters()
    }


@pytest.mark.parametrize("model", VARIANTS[-5:], ids=lambda model: str(model)[:60])
def test_the_spec_knows_what_every_module_puts_out(model: dict[str, Any]) -> None:
    """And which modules never run by themselves, so that distillation cannot bind them."""
    experiment = ExperimentConfig.model_validate({"model": model})
    constant, tree = keeps_pretrained_norms(experiment), detector_modules(experiment)
    with torch.device("meta"):
        real = build_model(experiment.model, 3, freeze_norm=constant, freeze_stem=constant)
    bound = [
        name
        for name, _ in real.named_modules()
        if name.startswith(("backbone", "encoder", "decoder.input_proj"))
    ]
    outputs = sample_features(real, bound)
    for name in bound:
        known = feature_called(name, experiment.model, tree)
        assert isinstance(known, Feature) == (name in outputs), f"{name}: {known}"
        if isinstance(known, Feature):
            dims = [tensor.dim() for tensor in outputs[name]]
            assert dims == {"maps": [4] * known.size, "map": [4], "cells": [3]}[known.kind], name
