"""Detectors as the spec asks for them."""

from __future__ import annotations

import torch
from engine_support import Workspace, fresh_detector, workspace  # noqa: F401

from rtdetr_slurm.engine.models.layers import FrozenBatchNorm2d

# ruff: noqa: F811  (pytest fixtures are arguments of the name they are imported by)


def test_pretrained_backbone_freezes_stem_and_norms(workspace: Workspace) -> None:
    plain = fresh_detector(workspace.session(), 0)
    path = workspace.root / "backbone.pth"
    torch.save(plain.backbone.state_dict(), path)
    setting = f"model.pretrained_backbone_path={path}"
    model = fresh_detector(workspace.session(setting), 1)
    norms = [m for m in model.backbone.modules() if isinstance(m, FrozenBatchNorm2d)]
    assert len(norms) == 10
    assert not any(isinstance(m, torch.nn.BatchNorm2d) for m in model.backbone.modules())
    stem, later = list(model.backbone.named_parameters())[:1], list(model.backbone.parameters())
    assert not stem[0][1].requires_grad
    assert later[-1].requires_grad
    torch.testing.assert_close(stem[0][1], dict(plain.backbone.named_parameters())[stem[0][0]])
    # a whole pretrained detector takes its place, and nothing is frozen
    detector = workspace.root / "detector.pth"
    torch.save(plain.state_dict(), detector)
    both = workspace.session(setting, f"train.pretrained_model_path={detector}")
    assert all(p.requires_grad for p in fresh_detector(both, 1).parameters())
