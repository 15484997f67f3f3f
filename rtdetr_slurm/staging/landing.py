"""Where the files of an entry land while it is made: written by several threads, for a file server
answers many at once faster than one after the other. Standard library only."""

from __future__ import annotations

import hashlib
import os
import posixpath
import shutil
from collections import deque
from collections.abc import Callable, Iterable
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path

from rtdetr_slurm.contract import FailureClass
from rtdetr_slurm.errors import RequestError, SiteError, explained
from rtdetr_slurm.staging.entries import CONTENT, FILES_JSONL, FileRecord, file_line, read_files
from rtdetr_slurm.staging.progress import Ticker, size_text

THREADS = 8
_UNDER_WAY = 4 * THREADS
_MAX_FILES = 1_500_000
"""Their record is read whole."""
_SPARE_BYTES = 64 << 20


class BadArchive(RequestError):
    """What is in an object is refused, whoever asks for it."""


class Landing:
    """A folder of work. What an earlier owner has brought into it counts."""

    def __init__(self, work: Path, top: str, ticker: Ticker) -> None:
        """
        Args:
            top: folder in `content` that all goes into.
        """
        self.work, self._ticker = work, ticker
        self._top = work / CONTENT / top
        self._prefix = top
        self._top.mkdir(parents=True, exist_ok=True)
        noted = {one.name: one for one in read_files(work / FILES_JSONL)}
        self._files = {name: one for name, one in noted.items() if self._is_there(one)}
        self._earlier = frozenset(self._files)
        whole = len(self._files) == len(noted)
        self.resume_at = max((one.at or 0 for one in noted.values()), default=0) if whole else 0
        ticker.add(files=len(self._files))
        self._folders: set[str] = set()
        self._seen: set[str] = set()
        self._pool = ThreadPoolExecutor(THREADS)
        self._under_way: deque[Future[FileRecord]] = deque()
        self._journal = (work / FILES_JSONL).open("a", encoding="utf-8", buffering=1)

    def _is_there(self, one: FileRecord) -> bool:
        try:
            return (self.work / CONTENT / one.name).stat().st_size == one.size
        except OSError:
            return False

    def put(
        self, name: str, content: Callable[[], Iterable[bytes]] | bytes, *, at: int | None = None
    ) -> None:
        """Have a file written.

        Args:
            name: safe, and relative to the top folder.
            content: or what gives it piece by piece, in another thread.
            at: `at` of its record.

        Raises:
            BadArchive: there is one of that name, or a file where a folder is to be.
            SiteError: this one, or one before, cannot be written.
        """
        path = self._place(name)
        pieces = (lambda: [content]) if isinstance(content, bytes) else content
        self._under_way.append(self._pool.submit(self._write, name, path, pieces, at))
        while len(self._under_way) > _UNDER_WAY or (self._under_way and self._under_way[0].done()):
            self._note_first()

    def has(self, name: str) -> bool:
        """Whether an earlier owner has brought this one, whole."""
        if self._named(name) not in self._earlier:
            return False
        self._see(name)
        return True

    def link(self, name: str, target: str) -> bool:
        """Have a file be the same as one that is there; False where that is not there."""
        self.settle()
        found = self._files.get(self._named(target))
        if found is None:
            return False
        if not self.has(name):
            path = self._place(name)
            path.unlink(missing_ok=True)
            try:
                os.link(self._top / target, path)
            except OSError:  # a file system without
                shutil.copyfile(self._top / target, path)
            self._add(FileRecord(self._named(name), found.size, found.sha256))
        return True

    def settle(self) -> None:
        """Wait for what was put. Raises SiteError: it cannot be written."""
        while self._under_way:
            self._note_first()

    def finish(self) -> list[FileRecord]:
        """All that is there, by name.

        Raises:
            SiteError: something cannot be written.
        """
        self.settle()
        return sorted(self._files.values(), key=lambda one: one.name)

    def close(self, *, wait: bool) -> None:
        """Have no more written.

        Args:
            wait: for what is under way; not where it may wait for a network itself.
        """
        self._pool.shutdown(wait=wait, cancel_futures=True)
        for one in self._under_way:
            if not one.done() or one.cancelled() or one.exception() is not None:
                break  # whoever goes on from a later one would not have this
            self._add(one.result())
        self._journal.close()

    def _named(self, name: str) -> str:
        return posixpath.join(self._prefix, name)

    def _see(self, name: str) -> None:
        if name in self._seen:
            raise BadArchive(f"it holds {name!r} twice; pack it anew")
        self._seen.add(name)
        if len(self._seen) > _MAX_FILES:
            raise BadArchive(f"it holds more than {_MAX_FILES:,} files; split it")

    def _place(self, name: str) -> Path:
        self._see(name)
        try:
            self._make_folder(posixpath.dirname(name))
        except (FileExistsError, NotADirectoryError):
            raise BadArchive(f"it holds {name!r} below what is a file") from None
        except OSError as error:
            raise explained(error) from error
        return self._top / name

    def _make_folder(self, name: str) -> None:
        """Below the top folder alone: that is gone where another has taken over, and stays so."""
        if name and name not in self._folders:
            self._make_folder(posixpath.dirname(name))
            (self._top / name).mkdir(exist_ok=True)
            self._folders.add(name)

    def _write(
        self, name: str, path: Path, pieces: Callable[[], Iterable[bytes]], at: int | None
    ) -> FileRecord:
        digest, size = hashlib.sha256(), 0
        try:
            with path.open("wb") as stream:
                for piece in pieces():
                    stream.write(piece)
                    digest.update(piece)
                    size += len(piece)
        except IsADirectoryError:
            raise BadArchive(f"it holds {name!r} as a file and as a folder") from None
        except OSError as error:
            raise explained(error) from error
        return FileRecord(self._named(name), size, digest.hexdigest(), at)

    def _note_first(self) -> None:
        self._add(self._under_way[0].result())  # what failed stays the first
        self._under_way.popleft()
        self._ticker.check()

    def _add(self, record: FileRecord) -> None:
        self._files[record.name] = record
        self._journal.write(file_line(record))
        self._ticker.add(files=1)


def check_room(folder: Path, size: int, what: str) -> None:
    """Raises SiteError: a file system has less room than something needs that is to be there."""
    free = shutil.disk_usage(folder).free
    if free < size + _SPARE_BYTES:
        problem = SiteError(
            f"{what} needs {size_text(size)} in the cache {folder}, which has {size_text(free)} "
            "left; make room (`rtdetr-slurm cache prune`), or set another cache_root"
        )
        problem.failure_class = FailureClass.CONFIG  # no other node has more
        raise problem
