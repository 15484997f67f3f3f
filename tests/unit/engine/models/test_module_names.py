"""The names that the login node knows against those of the real detector."""

from __future__ import annotations

import json
from typing import Any, get_args

import pytest
import torch
from model_support import SMALLEST

from rtdetr_slurm.engine.models import build_model
from rtdetr_slurm.engine.models.backbone import build_backbone
from rtdetr_slurm.engine.models.features import Features, sample_features
from rtdetr_slurm.engine.models.structure import described
from rtdetr_slurm.spec.backbones import FILE, PUTS_OUT, size_with
from rtdetr_slurm.spec.bindings import Feature, feature_called
from rtdetr_slurm.spec.experiment import ExperimentConfig
from rtdetr_slurm.spec.model import Backbone
from rtdetr_slurm.spec.modules import detector_modules, keeps_pretrained_norms, names
from rtdetr_slurm.spec.tensor_names import COUNTER

VARIANTS: list[dict[str, Any]] = [
    {"backbone": name, "feat_channels": [64] * 3, "hidden_dim": 64} for name in SMALLEST
]
VARIANTS += [
    {"backbone": "fan_large", "return_interm_indices": [1, 2], "num_feature_levels": 2,
     "feat_channels": [64, 64], "feat_strides": [8, 16], "use_encoder_idx": [1]},
    {"backbone": "efficientvit_b1", "train_backbone": False},
    {"backbone": "convnext_small", "pretrained_backbone_path": "/w.pth"},
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
    resnet = model["backbone"].startswith("resnet")
    assert constant == ("pretrained_backbone_path" in model and resnet)
    with torch.device("meta"):
        real = build_model(experiment.model, 3, freeze_norm=constant, freeze_stem=constant)
    known = dict(names(detector_modules(experiment)))
    assert {name for name, parameter in known.items() if not parameter} == {
        name for name, _ in real.named_modules() if name
    }
    assert {name for name, parameter in known.items() if parameter} == {
        name for name, _ in real.named_parameters()
    }


@pytest.mark.parametrize("model", VARIANTS[4:], ids=lambda model: str(model)[:60])
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
        known, shapes = feature_called(name, experiment.model, tree), shapes_of(outputs, name)
        if isinstance(known, Feature):
            dims = [len(shape) for shape in shapes]
            assert dims == {"maps": [4] * known.size, "map": [4], "cells": [3]}[known.kind], name
        elif not name.startswith("backbone.") or model["backbone"].startswith("resnet"):
            assert shapes == [], f"{name}: {known}"


def shapes_of(outputs: Features, name: str) -> list[tuple[int, ...]]:
    return [tuple(tensor.shape) for tensor in outputs.get(name, ())]


def test_the_file_that_the_spec_reads_is_fresh() -> None:
    """For the least of every kind; all are remade by what the message says."""
    kept = json.loads(FILE.read_text())
    made = described(SMALLEST)
    for name in SMALLEST:
        one, other = (unfolded(found, name) for found in (kept, made))
        assert one == other, f"{name}: run python -m rtdetr_slurm.engine.models.structure"
    assert list(kept["backbones"]) == list(get_args(Backbone))


def unfolded(found: dict[str, Any], name: str) -> list[Any]:
    """The trees of a backbone, and the widths of its stages."""

    def node(number: int) -> dict[str, Any]:
        return {
            key: node(value) if isinstance(value, int) and key != PUTS_OUT else value
            for key, value in found["modules"][number].items()
        }

    entry = found["backbones"][name]
    return [entry["widths"], *map(node, entry["built_to"])]


def test_every_backbone_has_the_tensors_that_the_file_says() -> None:
    """The big ones, too, but without what they put out."""
    for name in get_args(Backbone):
        with torch.device("meta"):
            state = build_backbone(name, [1, 2, 3]).state_dict()
        shapes = {
            tensor: tuple(value.shape)
            for tensor, value in state.items()
            if not tensor.startswith("levels.") and not tensor.endswith(COUNTER)
        }
        assert size_with(name, shapes) == len(shapes), name
