"""Images of a batch mixed with one another, as DEIM does (Huang et al. 2025); on the device."""

from __future__ import annotations

from dataclasses import replace
from itertools import pairwise

import numpy as np
import torch
from torch import Tensor

from rtdetr_slurm.engine.datasets.seeds import mix_seed
from rtdetr_slurm.vision.samples import Batch

MIXUP_PROBABILITY = 0.5
"""Of a batch of a dense epoch."""
SHARES = (0.45, 0.55)


def mixing_share(batch: Batch, seed: int, epoch: int) -> float:
    """What `mix` is to leave of each image of a batch, 1 where it is not mixed: a function of seed,
    epoch and its images."""
    draw = np.random.default_rng(mix_seed(seed, epoch, *batch.images))
    return 1.0 if draw.random() >= MIXUP_PROBABILITY else draw.uniform(*SHARES)


def mix(images: Tensor, batch: Batch, share: float) -> tuple[Tensor, Batch]:
    """Mix each image of a batch with the one before it; it has the boxes of both.

    Args:
        images: float32 [B, 3, H, W] in 0..1, of the batch.
        share: of the image itself.

    Returns:
        The images, and the batch with their boxes; its pixels are as they were.
    """
    mixed = images.roll(1, dims=0).lerp_(images, share)
    starts = np.cumsum([0, *batch.counts])
    own = [np.arange(start, end) for start, end in pairwise(starts)]
    both = [np.concatenate(pair) for pair in zip(own, own[-1:] + own[:-1], strict=True)]
    rows = torch.from_numpy(np.concatenate(both)).to(images.device, non_blocking=True)
    return mixed, replace(
        batch, labels=batch.labels[rows], boxes=batch.boxes[rows], counts=[*map(len, both)]
    )
