"""The loaders that deliver a rank's batches."""

from __future__ import annotations

import os
from collections.abc import Iterable
from functools import partial
from typing import Any

import torch
from torch.utils.data import DataLoader, Dataset

from rtdetr_slurm.engine.datasets.sampler import DistributedBatchSampler
from rtdetr_slurm.engine.datasets.training_set import TrainingSet
from rtdetr_slurm.engine.process.stacks import dump_apart
from rtdetr_slurm.engine.process.stop import ignore_signals
from rtdetr_slurm.lifetime import end_with
from rtdetr_slurm.vision.samples import Batch, EvaluationSet, collate

BATCH_TIMEOUT = 20 * 60
"""Seconds until a batch that does not come is an error; shorter than the other ranks wait for this
one (distributed.COLLECTIVE_TIMEOUT), so that the cause is the first to be told."""


def training_loader(
    data: TrainingSet, batches: DistributedBatchSampler, *, workers: int, pin_memory: bool
) -> DataLoader[Batch]:
    """The batches of the sampler; its processes live as long as the loader."""
    return _loader(data, batches, workers, pin_memory, persistent_workers=workers > 0)


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
        # Forked, they share the table; otherwise each would import the engine and get a copy.
        multiprocessing_context="fork" if workers else None,
        pin_memory=pin_memory,
        collate_fn=collate,
        worker_init_fn=partial(_start_worker, os.getpid()),
        timeout=BATCH_TIMEOUT if workers else 0,
        generator=torch.Generator(),  # else the loader draws from the model's random numbers
        **options,
    )


def _start_worker(rank: int, _number: int) -> None:
    """A stop is the parent's business, its end is ours: what a loading process has inherited (the
    connections of a killed rank) would otherwise stay open until torch's watchdog looks, and the
    other ranks would wait for it."""
    dump_apart(os.environ)
    ignore_signals()
    end_with(rank)
