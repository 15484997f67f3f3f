"""Any number of images through a runtime that takes some numbers of them."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

Run = Callable[[Tensor], Sequence[Tensor]]
"""Images to the outputs of each, in one order."""


def in_batches(run: Run, images: Tensor, smallest: int, largest: int | None) -> list[Tensor]:
    """The outputs of all images, which are cut into batches of at most `largest` (None: any
    number); one smaller than `smallest` is filled up with black images, whose outputs are dropped.
    """
    outputs = []
    for batch in images.split(largest or max(len(images), 1)):
        count = len(batch)
        if count < smallest:
            filling = batch.new_zeros(smallest - count, *batch.shape[1:])
            batch = torch.cat([batch, filling])
        outputs.append([one[:count] for one in run(batch)])
    return [torch.cat(one) for one in zip(*outputs, strict=True)]
