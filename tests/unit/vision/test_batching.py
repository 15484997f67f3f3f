"""Any number of images through what takes some numbers of them."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from rtdetr_slurm.vision.batching import in_batches


@pytest.mark.parametrize(
    ("count", "smallest", "largest", "batches"),
    [
        (5, 1, 2, [2, 2, 1]),
        (5, 2, 2, [2, 2, 2]),
        (3, 4, 8, [4]),
        (9, 3, 8, [8, 3]),
        (5, 0, None, [5]),
        (0, 0, None, [0]),
        (1, 1, 1, [1]),
    ],
)
def test_every_image_has_its_own_outputs(
    count: int, smallest: int, largest: int | None, batches: list[int]
) -> None:
    images = torch.rand(count, 3, 4, 4)
    given: list[int] = []

    def run(batch: Tensor) -> list[Tensor]:
        given.append(len(batch))
        return [batch.sum((1, 2, 3)), batch[:, :1]]

    sums, firsts = in_batches(run, images, smallest, largest)
    assert given == batches
    assert torch.equal(sums, images.sum((1, 2, 3)))
    assert torch.equal(firsts, images[:, :1])
