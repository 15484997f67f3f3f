"""Two ranks over gloo, or on two GPUs, without torchrun, for what happens between ranks.

They are forked from a process that has imported the engine once: a rank of torchrun needs seconds
for that.
"""

from __future__ import annotations

import multiprocessing
import os
import time
import warnings
from collections.abc import Callable
from typing import Any

import torch.multiprocessing as mp

from rtdetr_slurm.engine.process import distributed
from rtdetr_slurm.engine.process.rendezvous import free_port

RANKS = 2
multiprocessing.get_context("forkserver").set_forkserver_preload(
    ["rtdetr_slurm.engine.actions.train"]
)


def run_ranks(
    function: Callable[..., None], *arguments: Any, timeout: float = 120, accelerator: str = "cpu"
) -> None:
    """Call `function(context, *arguments)` on every rank, one thread each.

    Raises:
        ProcessRaisedException: with a rank's traceback.
        AssertionError: the ranks hang.
    """
    ranks = mp.start_processes(
        _rank,
        (free_port(), accelerator, function, arguments),
        RANKS,
        join=False,
        start_method="forkserver",
    )
    assert ranks is not None
    deadline = time.monotonic() + timeout
    while not ranks.join(timeout=1):
        if time.monotonic() > deadline:
            for process in ranks.processes:
                process.kill()
            raise AssertionError("the ranks hang")


def _rank(
    rank: int,
    port: int,
    accelerator: str,
    function: Callable[..., None],
    arguments: tuple[Any, ...],
) -> None:
    os.environ |= {
        "RANK": str(rank),
        "LOCAL_RANK": str(rank),
        "WORLD_SIZE": str(RANKS),
        "LOCAL_WORLD_SIZE": str(RANKS),
        "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": str(port),
    }
    for category in (DeprecationWarning, FutureWarning):  # as in pyproject.toml
        warnings.filterwarnings("error", category=category, module="rtdetr_slurm")
    context = distributed.join(accelerator)
    distributed.torch.set_num_threads(1)
    function(context, *arguments)
    distributed.leave()
