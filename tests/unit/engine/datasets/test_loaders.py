"""Batches as the ranks get them."""

from __future__ import annotations

import faulthandler
import multiprocessing
import os
import re
import signal
import subprocess
import sys

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
from rtdetr_slurm.engine.process.stacks import DUMP_SIGNAL, ask_loaders, dump_on_signal
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


FORK = multiprocessing.get_context("fork")


class Hung(Dataset):
    """As on storage that does not answer, until it does."""

    def __init__(self) -> None:
        self.answers = FORK.Event()

    def __getitem__(self, _: int) -> None:
        self.answers.wait(60)


def test_a_batch_that_does_not_come_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(loaders, "BATCH_TIMEOUT", 0.2)
    data = Hung()
    batches = iter(loaders._loader(data, [[0]], 1, False))
    with pytest.raises(RuntimeError) as caught:
        next(batches)
    data.answers.set()
    batches._shutdown_workers()  # type: ignore[attr-defined]  # else Python waits for it at its end
    failure = explain(caught.value, 1, 2)
    assert (failure.failure_class, failure.expected) == (FailureClass.INFRA, True)
    assert failure.reason.startswith("no batch came from the loading processes")
    assert COLLECTIVE_TIMEOUT.total_seconds() > loaders.BATCH_TIMEOUT


def test_each_loading_process_tells_where_it_stands(monkeypatch: pytest.MonkeyPatch) -> None:
    """Apart from the rank that has forked it, and from the others."""
    rank, memory = os.getpid(), os.memfd_create("stacks")
    monkeypatch.setenv("RTDETR_STACKS", str(memory))
    dump_on_signal(os.environ)
    ready = FORK.Semaphore(0)

    def load(number: int) -> None:
        loaders._start_worker(rank, number)
        ready.release()
        Hung()[number]

    workers = [FORK.Process(target=load, args=(number,)) for number in range(2)]
    try:
        for worker in workers:
            worker.start()
        assert all(ready.acquire(timeout=30) for _ in workers)
        [text] = ask_loaders([rank], [memory])
    finally:
        for worker in workers:
            worker.kill()
        faulthandler.unregister(DUMP_SIGNAL)
    assert sorted(map(int, re.findall(r"^loading process (\d+) \(S\):$", text, re.M))) == sorted(
        worker.pid or 0 for worker in workers
    )
    assert text.count("in __getitem__\n") == 2
    assert os.fstat(memory).st_size == 0
    os.close(memory)


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
