"""Objects that are files. Standard library only."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from pathlib import Path

from rtdetr_slurm.errors import RequestError, explained
from rtdetr_slurm.storage.address import local_path
from rtdetr_slurm.storage.base import Changed, ObjectInfo


def head(uri: str) -> ObjectInfo:
    """Raises RequestError, SiteError: it is no file, or cannot be looked at."""
    path = local_path(uri)
    try:
        found = path.stat()
    except FileNotFoundError:
        raise RequestError(f"{path} does not exist") from None
    except OSError as error:
        raise explained(error) from error
    if not stat.S_ISREG(found.st_mode):
        raise RequestError(f"{path} is no file")
    return _info(path, found, path.name)


def listed(uri: str) -> Iterator[ObjectInfo]:
    """Raises RequestError, SiteError: it is no folder, or cannot be listed."""
    folder = local_path(uri)
    if not folder.is_dir():
        raise RequestError(f"{folder} is no folder")
    for path in sorted(folder.rglob("*")):
        if path.is_file():
            yield _info(path, path.stat(), path.relative_to(folder).as_posix())


def _info(path: Path, found: os.stat_result, name: str) -> ObjectInfo:
    return ObjectInfo(str(path), found.st_size, str(found.st_mtime_ns), name)


class LocalReader:
    """A file, read with pread."""

    ranged = True

    def __init__(self, info: ObjectInfo) -> None:
        self._info = info
        try:
            self._fd = os.open(local_path(info.uri), os.O_RDONLY | os.O_CLOEXEC)
        except OSError as error:
            raise explained(error) from error

    def read_range(self, start: int, length: int) -> bytes:
        now = os.fstat(self._fd)
        if (now.st_size, str(now.st_mtime_ns)) != (self._info.size, self._info.etag):
            raise Changed(self._info, f"and has {now.st_size} bytes now")
        pieces = []
        while length:
            try:
                piece = os.pread(self._fd, length, start)
            except OSError as error:
                error.filename = self._info.uri
                raise explained(error) from error
            if not piece:
                raise Changed(self._info, f"and ends after {start} bytes now")
            pieces.append(piece)
            start, length = start + len(piece), length - len(piece)
        return b"".join(pieces)

    def close(self) -> None:
        os.close(self._fd)
