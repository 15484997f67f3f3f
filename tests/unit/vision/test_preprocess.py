"""Image to network input."""

from __future__ import annotations

import numpy as np
import torch
from torchvision.transforms import v2

from rtdetr_slurm.vision.preprocess import preprocess


def test_uint8_resize_of_pillow_and_torchvision_agree() -> None:
    """No pixel differs by more than a rounding."""
    rng = np.random.default_rng(0)
    for height, width in ((48, 64), (200, 130), (97, 31), (96, 64)):
        image = rng.integers(0, 256, (height, width, 3), dtype=np.uint8)
        theirs = v2.functional.resize(
            torch.from_numpy(image).permute(2, 0, 1), [96, 64], antialias=True
        )
        torch.testing.assert_close(
            preprocess(image, (96, 64)), theirs[None] / 255, atol=1.001 / 255, rtol=0
        )
