"""What is in the cache, whether it is as it was, and removing it. Standard library only."""

from __future__ import annotations

import shutil
import uuid
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path

from rtdetr_slurm.errors import RequestError
from rtdetr_slurm.files import sha256_of
from rtdetr_slurm.records import BadRecord, names_in
from rtdetr_slurm.staging.claims import latest_claim
from rtdetr_slurm.staging.entries import (
    CONTENT,
    FILES_JSONL,
    Entry,
    all_keys,
    last_used,
    read_entry,
    read_files,
)

_GONE = ".gone-"
_STALE = timedelta(days=1)
"""An owner that has said nothing for so long is dead, however wrong some clock is."""


@dataclass(frozen=True)
class Kept:
    """A folder of the cache.

    Attributes:
        entry: None where it is not complete, or cannot be read.
        used: when somebody last wanted it, or worked on it.
        at_work: who brings it, while that is known.
        problem: why it cannot be read.
    """

    folder: Path
    entry: Entry | None = None
    used: datetime | None = None
    at_work: str | None = None
    problem: str | None = None

    @property
    def key(self) -> str:
        return self.folder.name


def kept_in(cache: Path) -> list[Kept]:
    """All that is in the cache, complete or not.

    Raises:
        BadRecord: it cannot be listed.
    """
    return [_kept(cache / key) for key in all_keys(cache)]


def _kept(folder: Path) -> Kept:
    try:
        entry, latest = read_entry(folder), latest_claim(folder)
    except RequestError as error:
        return Kept(folder, problem=str(error))
    if entry is not None:
        return Kept(folder, entry, last_used(folder) or datetime.fromisoformat(entry.time))
    if latest is None:
        return Kept(folder)
    record = latest[1]
    working = record.state == "working" and not record.is_gone
    at_work = str(record) if working else None
    return Kept(folder, None, datetime.fromisoformat(record.time), at_work)


def chosen(kept: Sequence[Kept], keys: Sequence[str]) -> list[Kept]:
    """Those whose keys begin so; all where none is named.

    Raises:
        RequestError: one is meant by nothing, or by several.
    """
    found = []
    for key in keys:
        meant = [one for one in kept if one.key.startswith(key)]
        if len(meant) != 1:
            many = f"{len(meant)} entries begin so" if meant else "there is no such entry"
            raise RequestError(f"{key!r}: {many}; `rtdetr-slurm cache list` shows all")
        found += meant
    return found or [*kept]


def is_unneeded(one: Kept, now: datetime, unused: timedelta) -> bool:
    """Whether nobody has wanted an entry for so long; or, of what is not complete, whether it was
    left so long ago, or a day, and whether who works on it has said nothing for a day."""
    if one.problem is not None:
        return False
    if one.entry is None:
        unused = _STALE if one.at_work else min(unused, _STALE)
    return one.used is None or now - one.used > unused


def damage(one: Kept) -> Iterator[str]:
    """What is not as it was brought, file by file.

    Raises:
        BadRecord: its record of files cannot be read.
    """
    if one.problem is not None:
        yield one.problem
    if one.entry is None:
        return
    files = read_files(one.folder / FILES_JSONL)
    if len(files) != one.entry.files:
        yield f"{FILES_JSONL} lists {len(files)} files of {one.entry.files}"
    for file in files:
        path = one.folder / CONTENT / file.name
        if ".." in Path(file.name).parts or Path(file.name).is_absolute():
            raise BadRecord(one.folder / FILES_JSONL, f"{file.name!r} leads out of it")
        try:
            size = path.stat().st_size
            if size != file.size:
                yield f"{file.name}: {size} bytes, and had {file.size}"
            elif sha256_of(path) != file.sha256:
                yield f"{file.name}: another content"
        except OSError as error:
            yield f"{file.name}: {error.strerror}"


def remove(cache: Path, key: str) -> None:
    """Take an entry out of the cache: for everybody else at once, however long it takes.

    Raises:
        OSError: it cannot be removed.
    """
    gone = cache / f"{_GONE}{key}-{uuid.uuid4().hex[:8]}"
    (cache / key).rename(gone)
    shutil.rmtree(gone)


def remove_rests(cache: Path) -> None:
    """What a removal that was killed has left."""
    for name in names_in(cache):
        if name.startswith(_GONE):
            shutil.rmtree(cache / name, ignore_errors=True)
