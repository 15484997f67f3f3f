"""Parameter groups, learning rates, freezing."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import nn

from rtdetr_slurm.engine.models import RTDETR, build_model
from rtdetr_slurm.engine.training.optim import (
    build_optimizer,
    freeze,
    parameter_groups,
)
from rtdetr_slurm.errors import RequestError
from rtdetr_slurm.spec.model import ModelConfig
from rtdetr_slurm.spec.train import OptimConfig


@pytest.fixture(scope="module")
def model() -> RTDETR:
    cfg = ModelConfig(
        backbone="resnet_18_vd",
        hidden_dim=32,
        feat_channels=[32, 32, 32],
        dim_feedforward=64,
        dec_layers=2,
        num_queries=10,
        num_select=10,
    )
    return build_model(cfg, 4)


def names_of(model: nn.Module, group: dict[str, Any]) -> set[str]:
    wanted = {id(p) for p in group["params"]}
    return {name for name, p in model.named_parameters() if id(p) in wanted}


class TestGroups:
    def test_backbone_rate_reaches_the_backbone(self, model: RTDETR) -> None:
        """In TAO it does not: its group is empty, and the backbone learns at `lr`."""
        cfg = OptimConfig(lr=1e-3, lr_backbone=1e-6, weight_decay=1e-12)
        optimizer = build_optimizer(model, cfg)
        before = {name: p.detach().clone() for name, p in model.named_parameters()}
        for parameter in model.parameters():
            parameter.grad = torch.ones_like(parameter)
        optimizer.step()
        # With equal gradients, AdamW's first step moves every weight by its rate.
        for name, parameter in model.named_parameters():
            moved = (before[name] - parameter.detach()).abs().max().item()
            rate = 1e-6 if name.startswith("backbone.") else 1e-3
            assert moved == pytest.approx(rate, rel=0.2), name
        optimizer.zero_grad()

    def test_every_parameter_is_in_one_group(self, model: RTDETR) -> None:
        groups = parameter_groups(model, OptimConfig())
        assert [group["name"] for group in groups] == [
            "backbone",
            "backbone_no_decay",
            "no_decay",
            "decay",
        ]
        names = [names_of(model, group) for group in groups]
        assert (
            sum(map(len, names)) == len(set().union(*names)) == len(dict(model.named_parameters()))
        )

    def test_no_decay_for_biases_and_norms(self, model: RTDETR) -> None:
        groups = {g["name"]: g for g in parameter_groups(model, OptimConfig(weight_decay=0.1))}
        spared = names_of(model, groups["no_decay"])
        assert groups["no_decay"]["weight_decay"] == 0
        assert "weight_decay" not in groups["decay"]
        assert "encoder.input_proj.0.norm.weight" in spared
        assert "decoder.enc_output.norm.weight" in spared
        assert "decoder.enc_score_head.bias" in spared
        assert not any(name.startswith("backbone.") for name in spared)
        scaled = names_of(model, groups["backbone_no_decay"])
        assert "backbone.conv1.conv1_1.norm.weight" in scaled
        assert groups["backbone_no_decay"]["weight_decay"] == 0
        assert not any(name.endswith("conv.weight") for name in scaled)
        decayed = names_of(model, groups["decay"])
        assert "decoder.enc_score_head.weight" in decayed
        assert not any(name.endswith("bias") or ".norm." in name for name in decayed)

    def test_frozen_parameters_are_in_none(self) -> None:
        model = nn.ModuleDict({"backbone": nn.Linear(2, 2), "encoder": nn.Linear(2, 2)})
        model["backbone"].requires_grad_(False)
        groups = parameter_groups(model, OptimConfig())
        assert [group["name"] for group in groups] == ["no_decay", "decay"]


class TestFreeze:
    def model(self) -> nn.Module:
        encoder = nn.ModuleDict({"conv": nn.Conv2d(1, 1, 1), "norm": nn.BatchNorm2d(1)})
        return nn.ModuleDict({"encoder": encoder, "head": nn.Linear(1, 1)})

    def test_modules_and_parameters(self) -> None:
        model = self.model()
        norms = freeze(model, ["encoder", "head.bias"])
        assert [n for n, p in model.named_parameters() if p.requires_grad] == ["head.weight"]
        assert norms == [model["encoder"]["norm"]]

    def test_unknown_name(self) -> None:
        with pytest.raises(RequestError, match=r"train\.freeze names 'encodr', .*encoder, head"):
            freeze(self.model(), ["encodr"])
        with pytest.raises(RequestError, match=r"in encoder there are conv, norm"):
            freeze(self.model(), ["encoder.cnov"])

    def test_nothing_left(self) -> None:
        with pytest.raises(RequestError, match="leaves nothing to train"):
            freeze(self.model(), ["encoder", "head"])
