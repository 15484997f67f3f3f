"""Image to network input."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor


def test_uint8_resize_of_pillow_and_torchvision_agree() -> None:
    """Training resizes with torchvision, all else with Pillow: no pixel may differ by
    more than a rounding."""
    from torchvision.transforms import v2

    from rtdetr_slurm.vision.preprocess import preprocess, resize

    rng = np.random.default_rng(0)
    for height, width in ((48, 64), (200, 130), (97, 31)):
        image = rng.integers(0, 256, (height, width, 3), dtype=np.uint8)
        ours = torch.from_numpy(resize(image, (96, 64)).copy()).permute(2, 0, 1)
        theirs: Tensor = v2.functional.resize(
            torch.from_numpy(image).permute(2, 0, 1), [96, 64], antialias=True
        )
        assert (ours.int() - theirs.int()).abs().max() <= 1
        torch.testing.assert_close(preprocess(image, (96, 64)), ours[None] / 255)
