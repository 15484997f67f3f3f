"""Processes that end with the one that has started them. Linux; standard library only."""

from __future__ import annotations

import ctypes
import os
import signal
from collections.abc import Callable
from functools import partial


def signal_name(number: int) -> str:
    """`SIGTERM`; a real-time signal has only a number."""
    try:
        return signal.Signals(number).name
    except ValueError:
        return f"signal {number}"


_PR_SET_PDEATHSIG = 1
_LIBC = ctypes.CDLL(None)


def ends_with_me(signum: int = signal.SIGKILL) -> Callable[[], None]:
    """For the `preexec_fn` of a child: the kernel sends it `signum` when this process ends,
    whatever ends it.

    That holds through an exec, and not for the child's own children. To be called by the main
    thread of a process that has no others.
    """
    return partial(end_with, os.getpid(), signum)


def end_with(parent: int, signum: int = signal.SIGKILL) -> None:
    """Have the kernel send this process `signum` when `parent`, which has forked it, ends."""
    _LIBC.prctl(_PR_SET_PDEATHSIG, signum)
    if os.getppid() != parent:  # it ended before that
        os.kill(os.getpid(), signum)
