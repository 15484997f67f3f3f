"""A folder of the cache, copied to a node's own disk: once, whoever else there wants it. Standard
library only."""

from __future__ import annotations

import os
import shutil
import stat
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from hashlib import sha256
from pathlib import Path

from rtdetr_slurm.errors import RequestError, SiteError
from rtdetr_slurm.files import sha256_of, sync_all
from rtdetr_slurm.launch.copies import KEY_DIGITS, LocalCopy
from rtdetr_slurm.records import BadRecord, names_in
from rtdetr_slurm.staging.entries import CONTENT, FILES_JSONL, FileRecord, read_entry, read_files
from rtdetr_slurm.staging.progress import Progress, Tell, Ticker, size_text

_THREADS = 8
_PIECE_BYTES = 1 << 20
_BLOCK_BYTES = 4096
"""Of a disk: a file takes a whole number of them."""
_SPARE_BYTES = 64 << 20


def local_copy_of(
    source: Path,
    root: Path,
    mark: str,
    tell: Tell,
    stopped: Callable[[], bool],
    say: Callable[[str], None] = lambda _: None,
) -> LocalCopy:
    """Have a whole copy of a folder, kept for a task. One that another process makes is waited for;
    one that lacks files gets them; what a killed process has left is gone on with.

    Args:
        source: a folder of images in the cache.
        root: the user's own folder in scratch.
        mark: of the task.
        tell: is told how far it is, about every second.
        say: is told what has become of it.

    Raises:
        Stopped: as `stopped` asked.
        RequestError: the folder is not of the cache, or not as it was brought.
        SiteError: there is no room for it, or something cannot be read or written.
        OSError: likewise.
    """
    files = files_below(source)
    copy = LocalCopy(root, key_of(files))
    holds = False

    def told(progress: Progress) -> None:
        if holds:
            copy.say(f"{size_text(progress.bytes)} of {size_text(progress.size)}\n")
        tell(progress)

    size = sum(one.size for one in files)
    ticker = Ticker(f"copy of {source}", size, told, stopped)

    def on_wait(owner: str) -> None:
        ticker.wait_for(f"another job here ({owner.strip()})")
        ticker.check()

    began = time.monotonic()
    with copy.held(on_wait):
        holds = True
        copy.reserve(mark)
        making = _Making(source, copy, ticker)
        what = f"{source}: its {len(files):,} images ({size_text(size)}) are in {copy.images}"
        if making.make(files):
            say(f"{what}, copied in {time.monotonic() - began:.0f} s")
        else:
            say(f"{what} already")
    return copy


def files_below(folder: Path) -> list[FileRecord]:
    """What the cache has on record below a folder, by names relative to that.

    Raises:
        RequestError: it is no folder of the cache, or the cache's record cannot be read.
    """
    for content in (folder, *folder.parents):
        if content.name == CONTENT and read_entry(content.parent) is not None:
            break
    else:
        raise RequestError(f"{folder} is in no cache, or has gone from there")
    top = "" if folder == content else f"{folder.relative_to(content)}/"
    record = content.parent / FILES_JSONL
    files = [
        FileRecord(one.name.removeprefix(top), one.size, one.sha256)
        for one in read_files(record)
        if one.name.startswith(top)
    ]
    for one in files:
        if one.name.startswith("/") or ".." in one.name.split("/"):
            raise BadRecord(record, f"{one.name!r} leads out of it")
    if not files:
        raise BadRecord(record, f"it lists nothing in {folder}")
    return files


def key_of(files: Sequence[FileRecord]) -> str:
    """The name of a copy: another one where names or contents are others."""
    digest = sha256()
    for one in sorted(files, key=lambda one: one.name):
        digest.update(one.name.encode(errors="surrogatepass") + b"\0")
        digest.update(f"{one.size} {one.sha256}\n".encode())
    return digest.hexdigest()[:KEY_DIGITS]


class _Making:
    """By who holds the copy."""

    def __init__(self, source: Path, copy: LocalCopy, ticker: Ticker) -> None:
        self._source, self._copy, self._ticker = source, copy, ticker
        self._temporary = copy.folder / "temporary"
        self._failed = threading.Event()

    def make(self, files: Sequence[FileRecord]) -> bool:
        """Make it whole; whether there was anything to do."""
        whole = self._copy.images.is_dir()
        folder = self._copy.images if whole else self._copy.part
        lacking = [one for one in files if not _fits(folder / one.name, one)]
        if whole and not lacking:
            self._ticker.at_end()
            return False
        self._make_room(sum(_on_disk(one.size) for one in lacking))
        for above in {(folder / one.name).parent for one in files}:
            above.mkdir(parents=True, exist_ok=True)
        shutil.rmtree(self._temporary, ignore_errors=True)
        self._temporary.mkdir()
        # Of what a killed process has left, only the content says whether it has come to the disk.
        wanted = lacking if whole else files
        self._ticker.add(sum(one.size for one in files) - sum(one.size for one in wanted))
        with ThreadPoolExecutor(_THREADS) as pool:
            shares = [
                pool.submit(self._put_all, folder, wanted[number::_THREADS], number)
                for number in range(_THREADS)
            ]
        for share in shares:
            share.result()
        sync_all(folder)
        if not whole:
            folder.rename(self._copy.images)
        shutil.rmtree(self._temporary)
        self._ticker.at_end()
        return True

    def _make_room(self, needed: int) -> None:
        """Remove other copies, the longest unwanted first, until so many bytes fit.

        Raises:
            SiteError: they do not, whatever could be removed.
        """
        root = self._copy.folder.parent
        needed += _SPARE_BYTES
        names = [name for name in names_in(root) if len(name) == KEY_DIGITS]
        others = [LocalCopy(root, name) for name in names if name != self._copy.key]
        used = 0
        for other in sorted(others, key=lambda other: other.last_wanted):
            if shutil.disk_usage(root).free >= needed:
                return
            with suppress(_InUse), other.held(_raise_in_use):
                if other.is_used():
                    used += 1
                else:
                    other.remove()
        if (free := shutil.disk_usage(root).free) < needed:
            kept = f", and {used} copies there are in use by jobs of yours" if used else ""
            raise SiteError(
                f"the copy of {self._source} takes {size_text(needed)} on this node, and {root} "
                f"has {size_text(free)} left{kept}; leave out job.local_copy, or have scratch name "
                "a larger disk"
            )

    def _put_all(self, folder: Path, files: Sequence[FileRecord], number: int) -> None:
        temporary = self._temporary / str(number)
        try:
            for one in files:
                if self._failed.is_set():
                    return
                self._ticker.check()
                self._put(one, folder / one.name, temporary)
                self._ticker.add(files=1)
        except BaseException:
            self._failed.set()
            raise

    def _put(self, one: FileRecord, target: Path, temporary: Path) -> None:
        if _fits(target, one) and sha256_of(target) == one.sha256:
            self._ticker.add(one.size)
            return
        source, digest, size = self._source / one.name, sha256(), 0
        try:
            with source.open("rb", buffering=0) as original, temporary.open("wb") as stream:
                while piece := original.read(_PIECE_BYTES):
                    self._ticker.check()
                    stream.write(piece)
                    digest.update(piece)
                    size += len(piece)
                    self._ticker.add(len(piece))
            temporary.replace(target)
        except OSError as error:
            raise SiteError(
                f"{source} cannot be copied to {target.parent}: {error.strerror}"
            ) from error
        if (size, digest.hexdigest()) != (one.size, one.sha256):
            target.unlink()
            raise RequestError(
                f"{source} is not as it was brought; remove what is damaged (`rtdetr-slurm cache "
                "verify --remove`), then resume the run"
            )


class _InUse(Exception):
    pass


def _raise_in_use(_owner: str) -> None:
    raise _InUse


def _fits(path: Path, one: FileRecord) -> bool:
    """Whether it is a file of this user's of the right size."""
    try:
        found = path.lstat()
    except OSError:
        return False
    mine = stat.S_ISREG(found.st_mode) and found.st_uid == os.getuid()
    return mine and found.st_size == one.size


def _on_disk(size: int) -> int:
    return -(-size // _BLOCK_BYTES) * _BLOCK_BYTES
