"""Loading processes that are killed, and whose rank is."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from process_support import gone
from torch.utils.data import Dataset

from rtdetr_slurm.contract import FailureClass
from rtdetr_slurm.engine.datasets import loaders
from rtdetr_slurm.engine.process.explain import explain


class Killed(Dataset[int]):
    """As by the kernel when the memory is full."""

    def __getitem__(self, number: int) -> int:
        os.kill(os.getpid(), number)
        return number


def test_a_killed_loading_process_is_an_error() -> None:
    with pytest.raises(RuntimeError) as caught:
        next(iter(loaders._loader(Killed(), [[signal.SIGKILL]], 1, False)))
    failure = explain(caught.value, 1, 2)
    assert (failure.failure_class, failure.expected) == (FailureClass.OOM_HOST, True)
    assert "is killed by signal: Killed" in failure.reason


PARENT = """
import os, signal
import torch
from torch.utils.data import DataLoader, Dataset
from rtdetr_slurm.engine.datasets.loaders import _loader

class Tell(Dataset):
    def __init__(self):
        self.rank = os.getpid()

    def __getitem__(self, _):
        print(os.getpid(), flush=True)
        os.kill(self.rank, signal.SIGKILL)
        signal.pause()

if __name__ == "__main__":
    next(iter(_loader(Tell(), [[0]], 1, False)))
"""


def test_loading_processes_end_with_their_rank(tmp_path: Path) -> None:
    """Also where it is killed, as by the kernel when the memory is full."""
    script = tmp_path / "rank.py"
    script.write_text(PARENT)
    with subprocess.Popen([sys.executable, script], stdout=subprocess.PIPE, text=True) as parent:
        assert parent.stdout is not None
        worker = int(parent.stdout.readline())
        assert parent.wait(60) == -signal.SIGKILL
        gone([worker], 2)  # torch's own watchdog needs 5 s
