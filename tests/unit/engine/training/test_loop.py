"""Parts of a step."""

from __future__ import annotations

from typing import Any

import torch
from engine_support import Workspace, workspace  # noqa: F401

from rtdetr_slurm.engine.training.loop import multi_scale

# ruff: noqa: F811  (pytest fixtures are arguments of the name they are imported by)


def test_size_of_a_step_is_the_same_on_all_ranks(workspace: Workspace) -> None:
    session = workspace.session("dataset.augmentation.multi_scales=[32, [64, 96], 96]")

    def sizes(images: torch.Tensor) -> list[Any]:
        return [tuple(multi_scale(images, session, 3, step).shape[-2:]) for step in range(20)]

    seen = sizes(torch.rand(1, 3, 64, 64))
    assert seen == sizes(torch.rand(2, 3, 128, 96))
    assert set(seen) == {(32, 32), (64, 96), (96, 96)}


def test_a_batch_is_resized_smoothly(workspace: Workspace) -> None:
    """TAO takes the nearest pixel, though images themselves are resized bilinearly."""
    session = workspace.session("dataset.augmentation.multi_scales=[32]")
    checks = torch.arange(64).remainder(2).float().expand(1, 3, 64, 64)
    assert multi_scale(checks, session, 3, 0).unique().tolist() == [0.5]
