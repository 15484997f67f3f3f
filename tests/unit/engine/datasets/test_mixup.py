"""Images of a batch mixed with one another."""

from __future__ import annotations

import pytest
import torch

from rtdetr_slurm.engine.datasets.mixup import mix, mixing_share
from rtdetr_slurm.vision.samples import Batch, Sample, collate


def batch_of(*counts: int) -> Batch:
    """Images of one grey level each, whose boxes have their own label."""
    samples = [
        Sample(
            image=10 + number,
            pixels=torch.full((3, 2, 2), number * 10, dtype=torch.uint8),
            labels=torch.full((count,), number),
            boxes=torch.full((count, 4), number / 10),
            size=(2, 2),
        )
        for number, count in enumerate(counts)
    ]
    return collate(samples)


def test_an_image_has_the_boxes_of_both() -> None:
    batch = batch_of(2, 0, 1)
    images = batch.pixels.double()
    mixed, both = mix(images, batch, 0.75)
    assert mixed[:, 0, 0, 0].tolist() == [0.25 * 20, 0.75 * 10, 0.75 * 20 + 0.25 * 10]
    assert both.counts == [3, 2, 1]
    labels = [target["labels"].tolist() for target in both.targets()]
    assert labels == [[0, 0, 2], [0, 0], [2]]
    torch.testing.assert_close(both.boxes, (both.labels / 10)[:, None].expand(-1, 4))
    assert both.num_boxes == 2 * batch.num_boxes
    assert images[:, 0, 0, 0].tolist() == [0, 10, 20]  # they are as they were


def test_half_of_the_batches_are_mixed() -> None:
    shares = [mixing_share(batch_of(1, 1), 0, epoch) for epoch in range(400)]
    mixed = [share for share in shares if share < 1]
    assert len(mixed) / 400 == pytest.approx(0.5, abs=0.1)
    assert min(mixed) == pytest.approx(0.45, abs=0.01)
    assert max(mixed) == pytest.approx(0.55, abs=0.01)


def test_is_a_function_of_seed_epoch_and_images() -> None:
    one = [mixing_share(batch_of(1, 1), 0, epoch) for epoch in range(20)]
    torch.manual_seed(5)
    assert one == [mixing_share(batch_of(1, 1), 0, epoch) for epoch in range(20)]
    assert one != [mixing_share(batch_of(1, 1), 1, epoch) for epoch in range(20)]
