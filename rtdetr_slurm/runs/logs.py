"""Reading logs that may still be written. Standard library only."""

from __future__ import annotations

import os
from pathlib import Path

from rtdetr_slurm.records import exists, open_file

_TAIL_LINES, _TAIL_BYTES = 200, 64 * 1024


def tail(path: Path, since: int = 0) -> list[str]:
    """The last 200 lines of a text file, at most 64 KiB of them; empty when there is none yet.

    Args:
        since: bytes at its beginning that are left out.
    """
    try:
        with open_file(path) as stream:
            size = stream.seek(0, os.SEEK_END)
            stream.seek(max(since, size - _TAIL_BYTES))
            text = stream.read().decode(errors="replace")
    except FileNotFoundError:
        return []
    return text.splitlines()[-_TAIL_LINES:]


class LogReader:
    """Hands out the lines that were added to a log since the last call."""

    def __init__(self, path: Path, *, from_end: bool = False) -> None:
        self.path = path
        self._offset = path.stat().st_size if from_end and exists(path) else 0
        self._rest = b""

    def new_lines(self, *, end: bool = False) -> list[str]:
        """Whole lines only, unless `end` says that nothing more will come."""
        try:
            with open_file(self.path) as stream:
                stream.seek(self._offset)
                data = stream.read()
        except FileNotFoundError:
            return []
        self._offset += len(data)
        *lines, self._rest = (self._rest + data).split(b"\n")
        if end and self._rest:
            lines, self._rest = [*lines, self._rest], b""
        return [line.decode(errors="replace") for line in lines]
