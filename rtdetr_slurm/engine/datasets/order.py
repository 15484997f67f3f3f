"""Which images an epoch has, and in which order: a function of seed, epoch and weights alone."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import torch
from numpy.typing import NDArray

from rtdetr_slurm.engine.datasets.seeds import mix_seed
from rtdetr_slurm.vision.table import Table

if TYPE_CHECKING:
    from rtdetr_slurm.spec.engine import SamplingConfig


def epoch_order(
    length: int, seed: int, epoch: int, weights: NDArray[np.float64] | None = None
) -> list[int]:
    """The images of an epoch in their order, `length` of them, as positions in the table.

    Without weights each is in it once. With weights an image whose share of them is s is in it
    `length` * s times, rounded up or down by chance (systematic sampling), so that an epoch is as
    even as it can be, and with equal weights each is in it once, too. An image that comes again is
    `length` further each time: the augmentation, which depends on that number, differs.
    """
    generator = torch.Generator().manual_seed(mix_seed(seed, epoch))
    order = torch.randperm(length, generator=generator)
    if weights is None:
        images: list[int] = order.tolist()
        return images
    ends = torch.from_numpy(weights)[order].cumsum(0)
    ends = ends * (length / ends[-1])
    offset = torch.rand((), generator=generator, dtype=torch.float64)
    numbers = torch.arange(length)
    drawn = order[torch.searchsorted(ends, numbers + offset).clamp(max=length - 1)]
    _, counts = drawn.unique_consecutive(return_counts=True)
    again = numbers - (counts.cumsum(0) - counts).repeat_interleave(counts)
    images = (drawn + length * again)[torch.randperm(length, generator=generator)].tolist()
    return images


def draw_images(
    draw: np.random.Generator, length: int, weights: NDArray[np.float64] | None, count: int
) -> list[int]:
    """`count` of `length` images, each drawn by itself."""
    if weights is None:
        return [int(image) for image in draw.integers(length, size=count)]
    ends = weights.cumsum()
    at = draw.random(count) * ends[-1]
    return [int(image) for image in ends.searchsorted(at, side="right")]


def image_weights(table: Table, sampling: SamplingConfig) -> NDArray[np.float64] | None:
    """The weight of each image of a training set, [I]: that of its source times the largest of its
    classes; crowd regions do not count, and an image without boxes has 1 for its classes.

    Returns:
        None where the spec says nothing.
    """
    if not sampling.class_weights and not sampling.source_weights:
        return None
    weights = np.ones(len(table))
    if sampling.class_weights:
        of_class = np.ones(max(table.classes, default=0) + 1)
        for category, name in table.classes.items():
            of_class[category] = sampling.class_weights.get(name, 1.0)
        boxes = np.flatnonzero(~table.crowds)
        image = np.searchsorted(table.starts, boxes, side="right") - 1
        largest = np.full(len(table), -1.0)
        np.maximum.at(largest, image, of_class[table.labels[boxes]])
        weights = np.where(largest < 0, 1.0, largest)
    if sampling.source_weights:
        weights = weights * np.array(sampling.source_weights)[table.source]
    return weights
