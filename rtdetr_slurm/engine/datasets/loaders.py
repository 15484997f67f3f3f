"""The loaders that deliver a rank's batches."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import torch
from torch.utils.data import DataLoader, Dataset

from rtdetr_slurm.engine.datasets.sampler import DistributedBatchSampler
from rtdetr_slurm.engine.datasets.training_set import TrainingSet
from rtdetr_slurm.engine.process.loading import CONTEXT, start_loading
from rtdetr_slurm.vision.image_set import ImageSet, ReadAhead
from rtdetr_slurm.vision.samples import Batch, EvaluationSet, collate


def training_loader(
    data: TrainingSet, batches: DistributedBatchSampler, *, workers: int, pin_memory: bool
) -> DataLoader[Batch]:
    """The batches of the sampler."""
    return _loader(data, batches, workers, pin_memory)


def evaluation_loader(
    data: EvaluationSet | ImageSet,
    batch_size: int,
    rank: int,
    ranks: int,
    *,
    workers: int,
    pin_memory: bool,
) -> DataLoader[Batch]:
    """Rank r of R scores every R-th batch: no image is left out and none is scored twice, and each
    is scored beside the same others on however many ranks, to the last bit."""
    images = range(len(data))
    batches = [list(images[i : i + batch_size]) for i in range(0, len(data), batch_size)]
    own = batches[rank::ranks]
    given = ReadAhead(data, own) if isinstance(data, ImageSet) else own
    return _loader(data, given, workers, pin_memory)


def _loader(
    data: Dataset[Any], batches: Iterable[Any], workers: int, pin_memory: bool
) -> DataLoader[Any]:
    """A loader whose processes live as long as it does."""
    return DataLoader(
        data,
        batch_sampler=batches,
        num_workers=workers,
        persistent_workers=workers > 0,
        multiprocessing_context=CONTEXT if workers else None,
        pin_memory=pin_memory,
        collate_fn=collate,
        worker_init_fn=start_loading,
        generator=torch.Generator(),  # else the loader draws from the model's random numbers
    )
