"""The request to stop: set by a signal, acted upon at the next step boundary by all ranks."""

from __future__ import annotations

import signal
from types import FrameType

from rtdetr_slurm.contract import STOP_SIGNAL

STOP_SIGNALS = (STOP_SIGNAL, signal.SIGUSR2, signal.SIGTERM)
"""Each of them asks for a checkpoint and an end; both are blocked while a process starts up, so
that a signal that comes early waits instead of killing it."""


class StopFlag:
    """Whether this process was asked to stop."""

    def __init__(self) -> None:
        self.requested = False

    def listen(self) -> None:
        """Set the flag on a stop signal from now on, including one that is pending already."""
        for number in STOP_SIGNALS:
            signal.signal(number, self._on_signal)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, STOP_SIGNALS)

    def _on_signal(self, _number: int, _frame: FrameType | None) -> None:
        self.requested = True


def hold_signals() -> None:
    """Block the stop signals in this thread, in threads it starts, and in its child processes.

    To be called before torch is imported: the threads that it starts would not hold them.
    """
    signal.pthread_sigmask(signal.SIG_BLOCK, STOP_SIGNALS)


def ignore_signals() -> None:
    """For data loading processes: a stop is their parent's business."""
    for number in STOP_SIGNALS:
        signal.signal(number, signal.SIG_IGN)


class Interrupted(Exception):
    """All ranks agreed to stop; what is needed to go on has been written."""
