"""Which samples form which batch on which rank."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray
from torch.utils.data import Sampler

from rtdetr_slurm.engine.datasets.order import epoch_order


class DistributedBatchSampler(Sampler[list[tuple[int, int]]]):
    """Batches of (epoch, image) for one rank; what is left over at an epoch's end is dropped.

    The order is that of `epoch_order`; rank r of R takes every R-th image of it. Unlike torch's
    DistributedSampler it makes the batches itself, never repeats an image to fill the last ones,
    says with each image which epoch it is for (the augmentation depends on it), and can start in
    the middle of an epoch.

    A step has the next `batch_size` x `ranks` images of the order, whichever rank has which: where
    that product stays the same, a number of steps is a number of images, on however many ranks.

    Args:
        batch_size: images of an optimizer step, on this rank.

    Attributes:
        parts: the equal micro-batches that the images of a step are yielded in.
    """

    def __init__(
        self,
        length: int,
        batch_size: int,
        rank: int,
        ranks: int,
        seed: int,
        weights: NDArray[np.float64] | None = None,
    ) -> None:
        self.length, self.batch_size, self.rank, self.ranks = length, batch_size, rank, ranks
        self.seed, self.weights = seed, weights
        self.epoch, self.first_step, self.parts = 0, 0, 1

    def set_position(self, epoch: int, step: int = 0) -> None:
        """The next iteration is `epoch`, from its optimizer step number `step` on."""
        self.epoch, self.first_step = epoch, step

    @property
    def steps_per_epoch(self) -> int:
        return self.length // (self.batch_size * self.ranks)

    def __len__(self) -> int:
        return (self.steps_per_epoch - self.first_step) * self.parts

    def __iter__(self) -> Iterator[list[tuple[int, int]]]:
        order = epoch_order(self.length, self.seed, self.epoch, self.weights)
        order = order[self.rank :: self.ranks]
        size = self.batch_size // self.parts
        ends = self.first_step * self.batch_size, self.steps_per_epoch * self.batch_size
        for start in range(*ends, size):
            yield [(self.epoch, image) for image in order[start : start + size]]
