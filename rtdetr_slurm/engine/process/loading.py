"""The process that a rank's loading processes are forked from.

Not from the rank itself: it has threads (gloo's or NCCL's, autograd's, CUDA's), and a lock that one
of them holds at the moment of a fork is held for ever in the child, which then never delivers a
batch. Before Python 3.12 the interpreter's own is among them: a thread of gloo that enters Python
while the rank forks is enough. The server has one thread, and none of the rank's connections to
others, which its children would keep open.
"""

from __future__ import annotations

import multiprocessing
import os
import signal
from multiprocessing import forkserver
from multiprocessing.context import ForkServerContext, ForkServerProcess
from multiprocessing.process import BaseProcess
from threading import Thread

from rtdetr_slurm.engine.process.stacks import DUMP_SIGNAL, dump_apart
from rtdetr_slurm.engine.process.stop import STOP_SIGNALS, ignore_signals

_started: list[ForkServerProcess] = []


class _Process(ForkServerProcess):
    def start(self) -> None:
        super().start()
        _started[:] = [process for process in _started if process.is_alive()] + [self]


class _Context(ForkServerContext):
    Process = _Process


CONTEXT = _Context()
PRELOAD = ["rtdetr_slurm.engine.datasets.sources"]
"""What loading processes need; imported once, by the server."""


def start_server() -> None:
    """Start the server, which imports torch meanwhile; the first loading process would otherwise.

    A stop is the rank's business: for the server and its children the signals stay blocked.
    """
    CONTEXT.set_forkserver_preload(PRELOAD)
    # What a killed rank leaves is removed for it, and that is no news.
    told = [os.environ.get("PYTHONWARNINGS"), "ignore:resource_tracker:UserWarning"]
    os.environ["PYTHONWARNINGS"] = ",".join(filter(None, told))
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {*STOP_SIGNALS, DUMP_SIGNAL})
    try:
        forkserver.ensure_running()
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def killed() -> tuple[int, int] | None:
    """Process and signal of a loading process that a signal has ended. Python's own notice of it is
    lost, for it is not the rank's child."""
    ended = ((process.pid or 0, -(process.exitcode or 0)) for process in _started)
    return next(((pid, number) for pid, number in ended if number > 0), None)


def start_loading(_number: int) -> None:
    """The first thing a loading process does: ignore requests to stop, and see that it ends with
    the rank, also where that is killed; torch looks every five seconds whether the server is there,
    which ends only when all its children have."""
    dump_apart(os.environ)
    ignore_signals()
    rank = multiprocessing.parent_process()
    assert rank is not None
    Thread(target=_end_with, args=(rank,), daemon=True).start()


def _end_with(rank: BaseProcess) -> None:
    rank.join()
    os._exit(1)
