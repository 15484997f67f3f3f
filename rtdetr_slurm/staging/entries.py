"""Entries of the cache: one folder each, there once its entry.json is. Standard library only."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Iterator
from contextlib import suppress
from dataclasses import asdict, dataclass
from datetime import datetime, timedelta, timezone
from pathlib import Path

from rtdetr_slurm.contract import CACHE_VERSION
from rtdetr_slurm.files import write_atomic
from rtdetr_slurm.plan.staging import ObjectKind, StagedObject
from rtdetr_slurm.records import (
    BadRecord,
    Moment,
    checked,
    checked_lines,
    names_in,
    read_json,
    read_record,
)
from rtdetr_slurm.storage.address import identity
from rtdetr_slurm.storage.base import ObjectInfo

CONTENT, FILES_JSONL = "content", "files.jsonl"
_ENTRY_JSON, _USED_JSON = "entry.json", "used.json"
_KEY_DIGITS = 40
_AGAIN = timedelta(hours=1)


@dataclass(frozen=True)
class FileRecord:
    """A file of an entry, a line of files.jsonl.

    Attributes:
        name: its path below `content`.
        sha256: of its content.
        at: of a tar file: where its next entry begins, from where all before it is here; while
            the entry is being made alone.
    """

    name: str
    size: int
    sha256: str
    at: int | None = None


@dataclass(frozen=True)
class EntryRecord:
    """What entry.json says.

    Attributes:
        uri: of the object, without its query.
        name, size, etag: of the object, as its place told.
        files, bytes: that lie in `content`.
        names: digest of the names that were wanted; None: all.
        time: when it was complete.
    """

    uri: str
    kind: ObjectKind
    name: str
    size: int
    etag: str
    files: int
    bytes: int
    names: str | None
    time: Moment
    user: str
    schema_version: int = CACHE_VERSION


@dataclass(frozen=True)
class Entry:
    """What the cache has of an object.

    Attributes:
        key: name of its folder.
        uri: of the object, without its query.
        path: the file; of an archive or a prefix the folder `content`, in which a folder of its
            name holds what is in it.
        size: bytes of the object.
        files, bytes: that lie in the cache.
        time: when it was complete, ISO 8601.
    """

    key: str
    uri: str
    kind: ObjectKind
    path: Path
    size: int
    etag: str
    files: int
    bytes: int
    time: str


@dataclass(frozen=True)
class _Used:
    time: Moment


def key_of(one: StagedObject, info: ObjectInfo, names: Iterable[str] | None) -> str:
    """The name of an entry's folder: what it is of, and of what it has been asked for.

    Args:
        names: of images; None: all.
    """
    facts = [CACHE_VERSION, one.kind, identity(one.uri), info.size, info.etag, digest_of(names)]
    return hashlib.sha256(json.dumps(facts).encode()).hexdigest()[:_KEY_DIGITS]


def digest_of(names: Iterable[str] | None) -> str | None:
    """Of names in whatever order."""
    if names is None:
        return None
    digest = hashlib.sha256()
    for name in sorted(names):
        digest.update(name.encode(errors="surrogatepass") + b"\0")
    return digest.hexdigest()


def read_entry(folder: Path) -> Entry | None:
    """What the cache has in a folder; None where it is not complete.

    Raises:
        BadRecord: its entry.json cannot be read.
    """
    path = folder / _ENTRY_JSON
    found = read_record(EntryRecord, path, CACHE_VERSION)
    if found is None:
        return None
    if found.kind == "file" and (found.name in ("", ".", "..") or "/" in found.name):
        raise BadRecord(path, f"{found.name!r} is no name of a file")
    return Entry(
        key=folder.name,
        uri=found.uri,
        kind=found.kind,
        path=folder / CONTENT / found.name if found.kind == "file" else folder / CONTENT,
        size=found.size,
        etag=found.etag,
        files=found.files,
        bytes=found.bytes,
        time=found.time,
    )


def write_entry(folder: Path, record: EntryRecord) -> None:
    """From now on it is there."""
    write_atomic(folder / _ENTRY_JSON, json.dumps(asdict(record), indent=2) + "\n")


def read_files(path: Path) -> list[FileRecord]:
    """The files that are on record; none where there is no record.

    Raises:
        BadRecord: it cannot be read.
    """
    return [record for _, record in checked_lines(FileRecord, path, CACHE_VERSION)]


def file_line(record: FileRecord) -> str:
    facts = {key: value for key, value in asdict(record).items() if value is not None}
    return json.dumps(facts) + "\n"


def all_keys(cache: Path) -> Iterator[str]:
    """Names of the folders of entries, complete or not."""
    for name in names_in(cache):
        if len(name) == _KEY_DIGITS and set(name) <= set("0123456789abcdef"):
            yield name


def say_used(folder: Path) -> None:
    """Note that somebody wants an entry now; where nothing can be noted, nobody minds."""
    now = datetime.now(timezone.utc)
    last = last_used(folder)
    if last is None or not timedelta() <= now - last < _AGAIN:
        text = json.dumps(asdict(_Used(now.isoformat(timespec="seconds"))))
        with suppress(OSError):
            write_atomic(folder / _USED_JSON, text + "\n")


def last_used(folder: Path) -> datetime | None:
    """When somebody last wanted an entry; None where that is not known."""
    path = folder / _USED_JSON
    try:
        return datetime.fromisoformat(checked(_Used, read_json(path), path).time)
    except (FileNotFoundError, BadRecord):
        return None
