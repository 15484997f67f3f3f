"""Batches as the ranks get them."""

from __future__ import annotations

import pytest
import torch
from table_support import table  # noqa: F401

from rtdetr_slurm.engine.datasets.loaders import evaluation_loader, training_loader
from rtdetr_slurm.engine.datasets.sampler import DistributedBatchSampler
from rtdetr_slurm.engine.datasets.training_set import TrainingSet
from rtdetr_slurm.engine.datasets.transforms import Augment
from rtdetr_slurm.spec.dataset import AugmentationConfig
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
        data = EvaluationSet(table, (64, 64))
        images: list[int] = []
        for rank in range(ranks):
            loader = evaluation_loader(data, 3, rank, ranks, workers=0, pin_memory=False)
            images += [image for batch in loader for image in batch.images]
        assert sorted(images) == list(range(10))
