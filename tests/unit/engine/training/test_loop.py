"""Parts of a step."""

from __future__ import annotations

from typing import Any

import torch

from rtdetr_slurm.engine.training.loop import multi_scale


def test_size_of_a_step_is_the_same_on_all_ranks() -> None:
    def sizes(images: torch.Tensor) -> list[Any]:
        scales = [32, [64, 96], 96]
        return [tuple(multi_scale(images, scales, 3, step).shape[-2:]) for step in range(20)]

    seen = sizes(torch.rand(1, 3, 64, 64))
    assert seen == sizes(torch.rand(2, 3, 128, 96))
    assert set(seen) == {(32, 32), (64, 96), (96, 96)}


def test_a_batch_is_resized_smoothly() -> None:
    """TAO takes the nearest pixel, though images themselves are resized bilinearly."""
    checks = torch.arange(64).remainder(2).float().expand(1, 3, 64, 64)
    assert multi_scale(checks, [32], 3, 0).unique().tolist() == [0.5]
