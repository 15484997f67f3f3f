"""Which samples form which batch on which rank, and the loaders that deliver them."""

from __future__ import annotations

import atexit
import multiprocessing
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, Sampler

from rtdetr_slurm.engine.datasets.detection import EvaluationSet, Sample, TrainingSet, mix_seed
from rtdetr_slurm.engine.datasets.images import BadImage
from rtdetr_slurm.engine.stop import ignore_signals

if TYPE_CHECKING:
    from rtdetr_slurm.engine.models.types import Target


@dataclass(frozen=True)
class Batch:
    """B samples. Boxes and labels of all images are packed behind each other.

    Attributes:
        images: list of B positions in the table.
        pixels: uint8 [B, 3, height, width].
        labels: int64 [sum T]. boxes: float32 [sum T, 4], cxcywh in 0..1.
        counts: T of each image.
        sizes: float32 [B, 2], original width and height.
        bad: files that could not be decoded.
    """

    images: list[int]
    pixels: Tensor
    labels: Tensor
    boxes: Tensor
    counts: list[int]
    sizes: Tensor
    bad: tuple[BadImage, ...] = ()

    @property
    def num_boxes(self) -> int:
        return sum(self.counts)

    def to(self, device: torch.device) -> Batch:
        """The batch on `device`; the copies need not have finished when this returns."""
        return replace(
            self,
            pixels=self.pixels.to(device, non_blocking=True),
            labels=self.labels.to(device, non_blocking=True),
            boxes=self.boxes.to(device, non_blocking=True),
            sizes=self.sizes.to(device, non_blocking=True),
        )

    def pin_memory(self) -> Batch:
        """Called by the loader."""
        return replace(
            self,
            pixels=self.pixels.pin_memory(),
            labels=self.labels.pin_memory(),
            boxes=self.boxes.pin_memory(),
            sizes=self.sizes.pin_memory(),
        )

    def targets(self) -> list[Target]:
        """Ground truth per image, as the model and the criterion take it."""
        labels, boxes = self.labels.split(self.counts), self.boxes.split(self.counts)
        return [{"labels": one, "boxes": few} for one, few in zip(labels, boxes, strict=True)]


def collate(samples: Sequence[Sample]) -> Batch:
    """Stack samples; where a place holder has no pixels, the batch is only good for its `bad`."""
    shapes = {sample.pixels.shape for sample in samples}
    pixels = [s.pixels for s in samples] if len(shapes) == 1 else [samples[0].pixels]
    return Batch(
        images=[s.image for s in samples],
        pixels=torch.stack(pixels),
        labels=torch.cat([s.labels for s in samples]),
        boxes=torch.cat([s.boxes for s in samples]),
        counts=[len(s.labels) for s in samples],
        sizes=torch.tensor([s.size for s in samples], dtype=torch.float32),
        bad=tuple(bad for s in samples for bad in s.bad),
    )


class TrainingOrder(Sampler[list[tuple[int, int]]]):
    """Batches of (epoch, image) for one rank; what is left over at an epoch's end is dropped.

    The order is a function of (seed, epoch) alone; rank r of R takes every R-th image of it.
    """

    def __init__(self, length: int, batch_size: int, rank: int, ranks: int, seed: int) -> None:
        self.length, self.batch_size, self.rank, self.ranks = length, batch_size, rank, ranks
        self.seed = seed
        self.epoch, self.first_step = 0, 0

    def set_position(self, epoch: int, step: int = 0) -> None:
        """The next iteration is `epoch`, from its batch number `step` on."""
        self.epoch, self.first_step = epoch, step

    @property
    def steps_per_epoch(self) -> int:
        return self.length // (self.batch_size * self.ranks)

    def __len__(self) -> int:
        return self.steps_per_epoch - self.first_step

    def __iter__(self) -> Iterator[list[tuple[int, int]]]:
        generator = torch.Generator().manual_seed(mix_seed(self.seed, self.epoch))
        order = torch.randperm(self.length, generator=generator)[self.rank :: self.ranks].tolist()
        for step in range(self.first_step, self.steps_per_epoch):
            batch = order[step * self.batch_size : (step + 1) * self.batch_size]
            yield [(self.epoch, image) for image in batch]


def training_loader(
    data: TrainingSet, order: TrainingOrder, *, workers: int, pin_memory: bool
) -> DataLoader[Batch]:
    """Batches in the order given; its processes live as long as the loader."""
    return _loader(data, order, workers, pin_memory, persistent_workers=workers > 0)


def evaluation_loader(
    data: EvaluationSet, batch_size: int, rank: int, ranks: int, *, workers: int, pin_memory: bool
) -> DataLoader[Batch]:
    """Rank r of R scores every R-th image: none is left out and none is scored twice."""
    share = range(rank, len(data), ranks)
    batches = [list(share[i : i + batch_size]) for i in range(0, len(share), batch_size)]
    return _loader(data, batches, workers, pin_memory)


def _loader(
    data: Dataset[Any], batches: Iterable[Any], workers: int, pin_memory: bool, **options: Any
) -> DataLoader[Any]:
    return DataLoader(
        data,
        batch_sampler=batches,
        num_workers=workers,
        pin_memory=pin_memory,
        collate_fn=collate,
        worker_init_fn=_start_worker,
        generator=torch.Generator(),  # else the loader draws from the model's random numbers
        **options,
    )


def _start_worker(_number: int) -> None:
    ignore_signals()


@atexit.register
def _end_workers() -> None:
    """Python ends its children with SIGTERM and then waits for them, but these ignore it."""
    for process in multiprocessing.active_children():
        process.kill()
