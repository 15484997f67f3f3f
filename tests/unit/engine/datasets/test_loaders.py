"""Batches as the ranks get them."""

from __future__ import annotations

import os
from multiprocessing.reduction import ForkingPickler
from pathlib import Path

import pytest
import torch
from table_support import table  # noqa: F401
from torch.utils.data import DataLoader, Dataset

from rtdetr_slurm.engine.datasets.loaders import evaluation_loader, training_loader
from rtdetr_slurm.engine.datasets.sampler import DistributedBatchSampler
from rtdetr_slurm.engine.datasets.training_set import TrainingSet
from rtdetr_slurm.engine.datasets.transforms import Augment
from rtdetr_slurm.engine.process.loading import CONTEXT
from rtdetr_slurm.spec.dataset import AugmentationConfig
from rtdetr_slurm.vision.preprocess import Resize
from rtdetr_slurm.vision.samples import Batch, EvaluationSet
from rtdetr_slurm.vision.table import Table

# ruff: noqa: F811  (pytest fixtures are arguments of the name they are imported by)


AUGMENTATION = AugmentationConfig(train_spatial_size=[64, 96])


class TestTrainingLoader:
    def test_does_not_depend_on_workers(self, table: Table) -> None:
        data = TrainingSet(table, Augment(AUGMENTATION), 0, replace_bad=False)
        delivered: list[list[Batch]] = []
        for workers in (0, 2):
            order = DistributedBatchSampler(len(table), 4, 0, 1, 0)
            loader = training_loader(data, order, workers=workers, pin_memory=False)
            both = []
            for epoch in (0, 1):
                order.set_position(epoch)
                both += list(loader)
            delivered.append(both)
        for a, b in zip(*delivered, strict=True):
            assert a.images == b.images
            assert torch.equal(a.pixels, b.pixels)
            assert torch.equal(a.boxes, b.boxes)


class TestEvaluationLoader:
    @pytest.mark.parametrize("ranks", [1, 2, 3, 12])
    def test_evaluation_covers_every_image_once(self, table: Table, ranks: int) -> None:
        data = EvaluationSet(table, Resize((64, 64)))
        batches: list[list[int]] = []
        for rank in range(ranks):
            loader = evaluation_loader(data, 3, rank, ranks, workers=0, pin_memory=False)
            batches += [batch.images for batch in loader]
        assert sorted(batches) == [[0, 1, 2], [3, 4, 5], [6, 7, 8], [9]]


class Origin(Dataset[int]):
    """The process that a loading process is forked from."""

    def __getitem__(self, _: int) -> int:
        return os.getppid()


def test_loading_processes_are_forked_from_a_process_of_one_thread() -> None:
    """Whatever threads this one has, none of them holds a lock for ever in a child."""
    loader = DataLoader(Origin(), None, num_workers=1, sampler=[0], multiprocessing_context=CONTEXT)
    (origin,) = loader
    assert origin != os.getpid()
    status = Path(f"/proc/{origin}/status").read_text().splitlines()
    assert "Threads:\t1" in status


def test_processes_share_a_table(table: Table) -> None:
    before = [table.describe(image) for image in range(len(table))]
    boxes = table.boxes.copy()
    copy = ForkingPickler.loads(ForkingPickler.dumps(table))
    assert [copy.describe(image) for image in range(len(table))] == before
    assert (copy.boxes == boxes).all()
    assert os.fstat(copy.mapped.file).st_ino == os.fstat(table.mapped.file).st_ino
    assert not copy.boxes.flags.writeable
    empty = ForkingPickler.loads(ForkingPickler.dumps(table.spread(0)))
    assert len(empty) == len(empty.boxes) == 0
