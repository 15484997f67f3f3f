"""The gradients of one optimizer step, from one batch or from several micro-batches."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import TypeVar

import torch
from torch import Tensor, nn

from rtdetr_slurm.engine.training.parallel import synchronised
from rtdetr_slurm.engine.training.state import TrainingState
from rtdetr_slurm.vision.samples import Target

T = TypeVar("T")


@dataclass(frozen=True)
class StepLoss:
    """The loss of a step on this rank, and the terms by name that it is the sum of."""

    value: float
    terms: Mapping[str, float]


def by_step(batches: Iterable[T], parts: int) -> Iterator[list[T]]:
    """The micro-batches of each step, so many at a time."""
    batches = iter(batches)
    while step := list(islice(batches, parts)):
        yield step


class Gradients:
    """Computes the gradients of a step, and knows its loss when the device does.

    A step of k micro-batches of b images has the gradients of one batch of k b: terms that are sums
    are divided by the boxes of all of them, and those that are means by k. What differs is what a
    batch computes as a whole: the statistics of batch norms that are trained, and how many groups
    of denoising queries its fullest image leaves room for.

    Args:
        num_boxes: scalar; boxes of the step per rank, averaged over the ranks, at least 1.
        beside: scalar that is read together with the loss.
    """

    def __init__(self, state: TrainingState, parts: int, num_boxes: Tensor, beside: Tensor) -> None:
        self.state, self.parts = state, parts
        self.num_boxes = num_boxes if parts == 1 else num_boxes / parts
        self.beside, self.names = beside, list[str]()
        self._sum: Tensor | None = None
        self._copy: HostCopy | None = None
        self._done = 0
        state.optimizer.zero_grad(set_to_none=True)

    def add(self, images: Tensor, targets: Sequence[Target]) -> None:
        """Forward and backward pass of one micro-batch: float32 [B, 3, H, W] in 0..1."""
        self._done += 1
        last = self._done == self.parts
        with synchronised(self.state.objective, last):
            loss, terms = self.state.objective(images, targets, self.num_boxes)
            self.names = [*terms]
            values = torch.stack([loss, *terms.values()]).detach()
            self._sum = values if self._sum is None else self._sum + values
            if last:
                self._copy = HostCopy(torch.cat([self.beside[None], self._sum]))
            if self.parts > 1:
                loss = loss / self.parts
            (loss if self.state.scaler is None else self.state.scaler.scale(loss)).backward()

    def read(self) -> tuple[float, StepLoss]:
        """What is beside, and the loss; waits for the last forward pass."""
        assert self._copy is not None
        beside, *values = self._copy.read()
        loss, *terms = (value / self.parts for value in values)
        return beside, StepLoss(loss, dict(zip(self.names, terms, strict=True)))


class HostCopy:
    """A small tensor on its way to the host, without making the host wait for the device.

    By the time it is read, the matcher has waited for the device anyway, and little more than the
    loss was queued in between.
    """

    def __init__(self, values: Tensor) -> None:
        self._event: torch.cuda.Event | None = None
        self._values = values.detach()
        if values.is_cuda:
            self._values = torch.empty(values.shape, dtype=values.dtype, pin_memory=True)
            self._values.copy_(values.detach(), non_blocking=True)
            self._event = torch.cuda.Event()
            self._event.record()

    def read(self) -> list[float]:
        if self._event is not None:
            self._event.synchronize()
        values: list[float] = self._values.tolist()
        return values


def has_batch_statistics(model: nn.Module) -> bool:
    """Whether a norm of the model in its present mode depends on what else is in a batch."""
    norms = (m for m in model.modules() if isinstance(m, nn.modules.batchnorm._NormBase))
    return any(norm.training for norm in norms)
