"""An object as a file to read: what comes next is fetched ahead, in several pieces at once."""

from __future__ import annotations

import io
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor

from rtdetr_slurm.storage.base import Reader

PIECE_BYTES = 8 << 20
AHEAD = 8
"""Pieces of an object in memory at once."""


class ObjectStream:
    """A file that can be read and sought in, for one thread.

    The more is read in a row, the more is fetched ahead: a look at the end of a zip file costs one
    piece.
    """

    def __init__(
        self,
        reader: Reader,
        size: int,
        *,
        piece: int = PIECE_BYTES,
        on_bytes: Callable[[int], object] = lambda _: None,
    ) -> None:
        """
        Args:
            size: of the object, in bytes.
            piece: bytes to ask for at once.
            on_bytes: is told of bytes that have come.
        """
        self._reader, self._size, self._piece, self._on_bytes = reader, size, piece, on_bytes
        self._most = AHEAD if reader.ranged else 1
        self._pool = ThreadPoolExecutor(self._most)
        self._pieces: dict[int, Future[bytes]] = {}
        self._at, self._last, self._ahead = 0, -2, 1

    def read(self, size: int = -1) -> bytes:
        end = self._size if size < 0 else min(self._size, self._at + size)
        parts = []
        while self._at < end:
            number, offset = divmod(self._at, self._piece)
            part = self._get(number)[offset : offset + end - self._at]
            parts.append(part)
            self._at += len(part)
        return b"".join(parts)

    def _get(self, number: int) -> bytes:
        if number != self._last:
            self._ahead = min(self._most, self._ahead * 2) if number == self._last + 1 else 1
            self._last = number
            wanted = range(number, min(number + self._ahead, -(-self._size // self._piece)))
            for old in [one for one in self._pieces if one not in (number - 1, *wanted)]:
                self._pieces.pop(old).cancel()
            for one in wanted:
                if one not in self._pieces:
                    self._pieces[one] = self._pool.submit(self._fetch, one)
        return self._pieces[number].result()

    def _fetch(self, number: int) -> bytes:
        start = number * self._piece
        content = self._reader.read_range(start, min(self._piece, self._size - start))
        self._on_bytes(len(content))
        return content

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        base = {io.SEEK_SET: 0, io.SEEK_CUR: self._at, io.SEEK_END: self._size}[whence]
        self._at = max(0, base + offset)
        return self._at

    def tell(self) -> int:
        return self._at

    def seekable(self) -> bool:
        return True

    def readable(self) -> bool:
        return True

    def flush(self) -> None:
        pass

    def close(self) -> None:
        """Ask for nothing more; what is on its way is not waited for."""
        self._pool.shutdown(wait=False, cancel_futures=True)
