"""What each rank of this node last did, in memory that it shares with the process that starts it.

A rank writes at every step and change of phase; no file is written and nobody is waited for, so
that a rank that hangs in whatever way shows by its silence.
"""

from __future__ import annotations

import mmap
import os
import struct
import time
from collections.abc import Mapping
from dataclasses import dataclass

from rtdetr_slurm.engine.process.phases import Phase, Phases

HEARTBEATS = "RTDETR_HEARTBEATS"
"""Environment of a rank: the file descriptor of the memory; unset where nobody watches it."""

_PHASES = tuple(Phase)
_SLOT = struct.Struct("@dqqqqq")  # native: each number is copied whole, and not byte by byte
_NO_EPOCH = -1


@dataclass(frozen=True)
class Beat:
    """What a rank last said of itself.

    Attributes:
        time: when, on the monotonic clock, which all processes of a machine share.
        steps_done: in all phases, since it began.
        epoch: zero-based; None where there are none.
        step, steps: of the phase, done and in all; 0 of 0 where it has none.
    """

    time: float
    phase: Phase = Phase.LOADING
    steps_done: int = 0
    epoch: int | None = None
    step: int = 0
    steps: int = 0


class Heartbeats:
    """The memory of `ranks` ranks; made by the process that starts them, before it does."""

    def __init__(self, ranks: int) -> None:
        self.fd = os.memfd_create("heartbeats")
        os.ftruncate(self.fd, ranks * _SLOT.size)
        self._memory = mmap.mmap(self.fd, ranks * _SLOT.size)
        for rank in range(ranks):
            _write(self._memory, rank, Beat(time.monotonic()))

    def read(self, local_rank: int) -> Beat:
        found = _SLOT.unpack_from(self._memory, local_rank * _SLOT.size)
        when, phase, done, epoch, step, steps = found
        return Beat(when, _PHASES[phase], done, None if epoch == _NO_EPOCH else epoch, step, steps)

    def close(self) -> None:
        self._memory.close()
        os.close(self.fd)


def beat_with(phases: Phases, environ: Mapping[str, str], local_rank: int) -> None:
    """Have this rank say what it does, where somebody watches it."""
    if HEARTBEATS not in environ:
        return
    memory = mmap.mmap(int(environ[HEARTBEATS]), 0)

    def beat(phases: Phases) -> None:
        now = phases.now
        done = phases.steps_done
        said = Beat(time.monotonic(), now.phase, done, now.epoch, now.step, now.steps)
        _write(memory, local_rank, said)

    phases.observers.append(beat)


def _write(memory: mmap.mmap, local_rank: int, beat: Beat) -> None:
    epoch = _NO_EPOCH if beat.epoch is None else beat.epoch
    phase = _PHASES.index(beat.phase)
    values = (beat.time, phase, beat.steps_done, epoch, beat.step, beat.steps)
    _SLOT.pack_into(memory, local_rank * _SLOT.size, *values)
