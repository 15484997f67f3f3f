"""What a training says of its detector's costs."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from engine_support import Workspace, fresh_detector, workspace  # noqa: F401

from rtdetr_slurm.engine.training.costs import detector_costs
from rtdetr_slurm.vision import timing

# ruff: noqa: F811  (pytest fixtures are arguments of the name they are imported by)


def test_costs_that_are_asked_for(workspace: Workspace, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(timing, "PACE", timing.Pace(0, 1, 0, 0))
    session = workspace.session("dataset.augmentation.eval_spatial_size=[64, 96]")
    detector = fresh_detector(session).train()
    assert detector_costs(session, detector) == {}
    shapes: list[torch.Size] = []
    detector.register_forward_pre_hook(lambda _, given: shapes.append(given[0].shape))
    costs = detector_costs(replace(session, costs=("latency_ms", "parameters")), detector)
    assert costs["latency_ms"] > 0
    assert {*shapes} == {(1, 3, 64, 96)}  # of the copy, which has the hook
    assert costs["parameters"] < sum(one.numel() for one in detector.parameters())  # the norms' go
    assert detector.training
