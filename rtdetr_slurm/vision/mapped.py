"""Arrays in one piece of memory that several processes map: there once, whoever looks at them.

Linux only.
"""

from __future__ import annotations

import mmap
import os
import weakref
from collections.abc import Mapping
from dataclasses import dataclass
from multiprocessing.reduction import DupFd
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

ALIGNMENT = 64
"""Of the arrays, in bytes: a line of the processor's cache."""


@dataclass(frozen=True)
class Column:
    """What an array is, and the bytes of the memory that it has, from `start` to before `end`."""

    dtype: str
    shape: tuple[int, ...]
    start: int
    end: int

    def of(self, memory: NDArray[np.uint8]) -> NDArray[Any]:
        """The array, in a memory."""
        return memory[self.start : self.end].view(self.dtype).reshape(self.shape)


Layout: TypeAlias = Mapping[str, Column]
"""The arrays' names, and where they are."""


class MappedArrays:
    """Read-only arrays by name. Another process that is given them maps the same memory.

    Attributes:
        file: descriptor of the memory. No file has its name: it is gone with the last process that
            has it open.
    """

    def __init__(self, file: int, layout: Layout) -> None:
        self.file, self.layout = file, layout
        weakref.finalize(self, os.close, file)
        memory = np.frombuffer(mmap.mmap(file, 0, prot=mmap.PROT_READ), np.uint8)
        self.arrays = {name: column.of(memory) for name, column in layout.items()}

    @classmethod
    def of(cls, arrays: Mapping[str, NDArray[Any]]) -> MappedArrays:
        """A copy of arrays."""
        layout, end = {}, 0
        for name, array in arrays.items():
            start = -(-end // ALIGNMENT) * ALIGNMENT
            end = start + array.nbytes
            layout[name] = Column(array.dtype.str, array.shape, start, end)
        made = cls.empty(layout)
        memory = made.memory()
        for name, column in layout.items():
            column.of(memory)[...] = arrays[name]
        return made

    @classmethod
    def empty(cls, layout: Layout) -> MappedArrays:
        """Arrays that are yet to be written, through `memory`.

        Raises:
            OSError: there is not so much memory.
        """
        file = os.memfd_create("rtdetr-arrays")
        try:
            size = max((column.end for column in layout.values()), default=0)
            # Now: whoever writes where there is no more memory is killed. Nothing cannot be mapped.
            os.posix_fallocate(file, 0, max(size, 1))
        except OSError:
            os.close(file)
            raise
        return cls(file, layout)

    def memory(self) -> NDArray[np.uint8]:
        """All bytes, to be written before others look at them."""
        return np.frombuffer(mmap.mmap(self.file, 0), np.uint8)

    def __reduce__(self) -> tuple[Any, ...]:
        return _received, (DupFd(self.file), self.layout)


def _received(file: Any, layout: Layout) -> MappedArrays:
    return MappedArrays(file.detach(), layout)
