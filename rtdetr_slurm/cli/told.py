"""Lines about what takes its time, not too many of them."""

from __future__ import annotations

import time

from rtdetr_slurm.cli import terminal

_EVERY_S = 5.0


class Told:
    """Notes how far something is, every few seconds; what is quick goes without a word."""

    def __init__(self) -> None:
        self._next = time.monotonic() + _EVERY_S

    def __call__(self, progress: object) -> None:
        if time.monotonic() >= self._next:
            self._next = time.monotonic() + _EVERY_S
            terminal.note(progress)
