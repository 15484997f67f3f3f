"""Batches as the ranks get them."""

from __future__ import annotations

import signal
import subprocess
import sys
import time

import pytest
import torch
from process_support import gone
from table_support import table  # noqa: F401
from torch.utils.data import Dataset

from rtdetr_slurm.contract import FailureClass
from rtdetr_slurm.engine.datasets import loaders
from rtdetr_slurm.engine.datasets.loaders import evaluation_loader, training_loader
from rtdetr_slurm.engine.datasets.sampler import DistributedBatchSampler
from rtdetr_slurm.engine.datasets.training_set import TrainingSet
from rtdetr_slurm.engine.datasets.transforms import Augment
from rtdetr_slurm.engine.process.distributed import COLLECTIVE_TIMEOUT
from rtdetr_slurm.engine.process.explain import explain
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


class Hung(Dataset):
    """As on storage that does not answer."""

    def __getitem__(self, _: int) -> None:
        time.sleep(60)


def test_a_batch_that_does_not_come_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(loaders, "BATCH_TIMEOUT", 0.2)
    loader = loaders._loader(Hung(), [[0]], 1, False)
    with pytest.raises(RuntimeError) as caught:
        next(iter(loader))
    failure = explain(caught.value, 1, 2)
    assert (failure.failure_class, failure.expected) == (FailureClass.INFRA, True)
    assert failure.reason.startswith("no batch came from the loading processes")
    assert COLLECTIVE_TIMEOUT.total_seconds() > loaders.BATCH_TIMEOUT


PARENT = """
import os, signal
import torch
from torch.utils.data import Dataset
from rtdetr_slurm.engine.datasets.loaders import _loader

class Tell(Dataset):
    def __getitem__(self, _):
        print(os.getpid(), flush=True)
        os.kill(os.getppid(), signal.SIGKILL)
        signal.pause()

next(iter(_loader(Tell(), [[0]], 1, False)))
"""


def test_loading_processes_end_with_their_parent() -> None:
    """Also where it is killed, as by the kernel when the memory is full."""
    command = [sys.executable, "-c", PARENT]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as parent:
        assert parent.stdout is not None
        worker = int(parent.stdout.readline())
        assert parent.wait(60) == -signal.SIGKILL
        gone([worker], 2)  # torch's own watchdog needs 5 s
