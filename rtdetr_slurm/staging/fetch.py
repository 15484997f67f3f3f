"""Bringing an object into the cache: once, whoever else wants it."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Iterable, Iterator
from contextlib import closing, suppress
from dataclasses import replace
from datetime import datetime, timezone
from functools import partial
from hashlib import sha256
from pathlib import Path

from rtdetr_slurm.data.archives import archive_stem
from rtdetr_slurm.errors import RequestError, refusals_explained
from rtdetr_slurm.files import sha256_of, sync_all, write_atomic
from rtdetr_slurm.plan.staging import StagedObject, Store
from rtdetr_slurm.resolved_spec import shown_uri
from rtdetr_slurm.runs.processes import user_name
from rtdetr_slurm.staging.claims import Claim, Lost, acquire, work_folders
from rtdetr_slurm.staging.download import download
from rtdetr_slurm.staging.entries import (
    CONTENT,
    FILES_JSONL,
    Entry,
    EntryRecord,
    FileRecord,
    digest_of,
    file_line,
    key_of,
    read_entry,
    read_files,
    say_used,
    write_entry,
)
from rtdetr_slurm.staging.landing import BadArchive, Landing, check_room
from rtdetr_slurm.staging.names import image_names, wanting
from rtdetr_slurm.staging.progress import Tell, Ticker
from rtdetr_slurm.staging.unpack import is_zip, safe_name, unpack
from rtdetr_slurm.storage.address import name_of, scheme_of
from rtdetr_slurm.storage.base import Changed, ObjectInfo, Reader
from rtdetr_slurm.storage.local import LocalReader
from rtdetr_slurm.storage.local import head as local_head
from rtdetr_slurm.storage.objects import head, listed, open_object
from rtdetr_slurm.storage.stream import PIECE_BYTES, ObjectStream

_DOWNLOAD = "download"
_PARTS_JSONL = "parts.jsonl"


def look(one: StagedObject, store: Store) -> ObjectInfo:
    """What its place says of an object; of all below a prefix, together.

    Raises:
        RequestError: there is none, or it may not be read, and why.
        Unreachable: its place does not answer.
    """
    if one.kind != "folder":
        return head(one.uri, store)
    found = [*listed(one.uri, store)]
    if not found:
        raise RequestError(f"{shown_uri(one.uri)}: there is nothing below it")
    return _together(one.uri, found)


def _together(uri: str, found: Iterable[ObjectInfo]) -> ObjectInfo:
    facts = sorted((info.name, info.size, info.etag) for info in found)
    etag = sha256(json.dumps(facts).encode()).hexdigest()
    return ObjectInfo(uri, sum(size for _, size, _ in facts), etag, name_of(uri))


def cached(
    one: StagedObject, cache: Path, info: ObjectInfo, names: Iterable[str] | None = None
) -> Entry | None:
    """What the cache has of an object; None where it is not there, or not complete.

    Args:
        info: what `look` has said of it.
        names: the `image_names` of `names_from`.

    Raises:
        BadRecord: the cache cannot be read.
    """
    entry = read_entry(cache / key_of(one, info, names))
    if entry is not None:
        say_used(cache / entry.key)
    return entry


@refusals_explained()
def fetch(
    one: StagedObject,
    cache: Path,
    store: Store,
    *,
    tell: Tell,
    stopped: Callable[[], bool] = lambda: False,
) -> Entry:
    """Have an object in the cache. Of several who want it, on whatever machines, one brings it and
    the others wait; what a killed one has left is gone on with.

    Args:
        cache: absolute; made where there is none.
        tell: is told how far it is, about every second.
        stopped: whether to end before it is there.

    Raises:
        Stopped: as `stopped` asked.
        RequestError: it is not there, may not be read, or something in it is refused.
        Unreachable: its place does not answer, or breaks off again and again.
        SiteError: the cache cannot be written, or has no room.
        Changed: it was replaced meanwhile.
    """
    names = None
    if one.names_from is not None:
        names = image_names(_local(one.names_from, cache, store, tell, stopped))
    info = look(one, store)
    folder = cache / key_of(one, info, names)
    ticker = Ticker(shown_uri(one.uri), info.size, tell, stopped)
    while True:
        if (entry := cached(one, cache, info, names)) is not None:
            ticker.at_end()
            return entry
        ticker.check()
        folder.mkdir(parents=True, exist_ok=True)

        def on_wait(owner: str) -> None:
            ticker.wait_for(owner)
            ticker.check()

        claim = acquire(folder, lambda: read_entry(folder) is not None, on_wait)
        if claim is not None:
            with suppress(Lost):
                _Bringing(one, info, names, folder, claim, ticker).bring(store)


def _local(uri: str, cache: Path, store: Store, tell: Tell, stopped: Callable[[], bool]) -> Path:
    if scheme_of(uri) == "file":
        return Path(head(uri, store).uri)
    return fetch(StagedObject(uri, "file"), cache, store, tell=tell, stopped=stopped).path


class _Bringing:
    """By who has the claim."""

    def __init__(
        self,
        one: StagedObject,
        info: ObjectInfo,
        names: frozenset[str] | None,
        folder: Path,
        claim: Claim,
        ticker: Ticker,
    ) -> None:
        self._one, self._info, self._names = one, info, names
        self._folder, self._claim, self._ticker = folder, claim, ticker
        self._stem = info.name if one.kind == "folder" else archive_stem(Path(info.name))

    def bring(self, store: Store) -> None:
        """Raises Lost, and what `fetch` does."""
        try:
            self._bring(store)
        except BaseException as error:
            self._claim.check()  # where another goes on, nothing of this counts
            if isinstance(error, BadArchive | Changed):
                for work in work_folders(self._folder):
                    shutil.rmtree(work, ignore_errors=True)
            if isinstance(error, BadArchive):
                self._claim.leave("refused", str(error))
            raise
        finally:
            self._claim.leave()

    def _bring(self, store: Store) -> None:
        if read_entry(self._folder) is not None:  # finished between two looks
            return
        work = self._claim.work()
        if (self._folder / CONTENT).exists():  # the owner before got so far
            files = read_files(self._folder / FILES_JSONL)
        else:
            try:
                files = self._made(work, store)
            except BadArchive as error:
                raise BadArchive(f"{self._info.shown}: {error}") from error
            self._publish(work, files)
        self._finish(files)
        shutil.rmtree(work, ignore_errors=True)

    def _made(self, work: Path, store: Store) -> list[FileRecord]:
        check_room(self._folder, self._info.size, self._info.shown)
        if self._one.kind == "folder":
            return self._all_below(work, store)
        with closing(open_object(self._info, store)) as reader:
            if self._one.kind == "file":
                path = work / CONTENT / self._info.name
                path.parent.mkdir(exist_ok=True)
                download(reader, self._info, path, work / _PARTS_JSONL, self._ticker)
                return [FileRecord(path.name, self._info.size, sha256_of(path))]
            return self._unpacked(work, reader)

    def _unpacked(self, work: Path, reader: Reader) -> list[FileRecord]:
        if not reader.ranged and is_zip(reader.read_range(0, min(2, self._info.size))):
            # What is where stands at its end: of a server that gives no pieces, it comes first.
            path = work / _DOWNLOAD
            download(reader, self._info, path, work / _PARTS_JSONL, self._ticker)
            with closing(LocalReader(local_head(str(path)))) as copy:
                return self._unpacked(work, copy)
        landing = Landing(work, self._stem, self._ticker)
        self._ticker.add(landing.resume_at)
        stream = ObjectStream(reader, self._info.size, on_bytes=self._ticker.came)
        try:
            unpack(stream, self._info.size, landing, wanting(self._names, self._stem))
            return landing.finish()
        finally:
            stream.close()
            landing.close(wait=True)

    def _all_below(self, work: Path, store: Store) -> list[FileRecord]:
        landing = Landing(work, self._stem, self._ticker)
        wanted = wanting(self._names, self._stem)
        try:
            found = [*listed(self._one.uri, store)]
            now = _together(self._one.uri, found)
            if now.etag != self._info.etag:
                raise Changed(self._info, f"and is {now.size} bytes now")
            for info in found:
                name = safe_name(info.name)
                if wanted(name) and not landing.has(name):
                    landing.put(name, partial(self._content, info, store))
            return landing.finish()
        finally:
            landing.close(wait=False)

    def _content(self, info: ObjectInfo, store: Store) -> Iterator[bytes]:
        with closing(open_object(info, store)) as reader:
            for start in range(0, info.size, PIECE_BYTES):
                piece = reader.read_range(start, min(PIECE_BYTES, info.size - start))
                self._ticker.came(len(piece))
                yield piece

    def _publish(self, work: Path, files: list[FileRecord]) -> None:
        sync_all(work)
        self._claim.check()
        lines = "".join(file_line(replace(one, at=None)) for one in files)
        write_atomic(self._folder / FILES_JSONL, lines)
        (work / CONTENT).rename(self._folder / CONTENT)

    def _finish(self, files: list[FileRecord]) -> None:
        record = EntryRecord(
            uri=shown_uri(self._one.uri),
            kind=self._one.kind,
            name=self._info.name,
            size=self._info.size,
            etag=self._info.etag,
            files=len(files),
            bytes=sum(one.size for one in files),
            names=digest_of(self._names),
            time=datetime.now(timezone.utc).isoformat(timespec="seconds"),
            user=user_name(),
        )
        write_entry(self._folder, record)
