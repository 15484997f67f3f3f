"""The file that a study is kept in, shared by all who take part: Optuna's journal storage."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from rtdetr_slurm.automl.quiet import silence
from rtdetr_slurm.records import BadRecord

if TYPE_CHECKING:
    from optuna.storages import BaseStorage
    from optuna.storages.journal import BaseJournalBackend, JournalFileBackend

JOURNAL = "journal.log"

_GRACE_SECONDS = 180
"""How long a lock may seem to be idle. Optuna breaks it after that, and measures by the time of the
journal's last change, which a node may see a minute late (NFS caches attributes)."""


def open_journal(path: Path) -> BaseStorage:
    """The storage in a file, which is made where there is none.

    Raises:
        BadRecord: it cannot be read, or is no journal.
    """
    from optuna.storages import JournalStorage
    from optuna.storages.journal import JournalFileBackend, JournalFileSymlinkLock

    silence()
    name = str(path.absolute())  # the lock is a link to it
    lock = JournalFileSymlinkLock(name, grace_period=_GRACE_SECONDS)
    try:
        backend = _MendingBackend(path, JournalFileBackend(name, lock_obj=lock), lock)
        return JournalStorage(cast("BaseJournalBackend", backend))
    except (OSError, ValueError, KeyError) as error:
        raise BadRecord(path, f"this is not the journal of a search: {error}") from error


class _MendingBackend:
    """Optuna's, which would append to a line that a crashed node has left unfinished, and could
    not read the journal from then on. Such a line is cut off first: nobody has read it."""

    def __init__(self, path: Path, backend: JournalFileBackend, lock: Any) -> None:
        self._path, self._backend, self._lock = path, backend, lock

    def read_logs(self, log_number_from: int) -> Iterator[dict[str, Any]]:
        try:
            yield from self._backend.read_logs(log_number_from)
        except ValueError as error:
            raise BadRecord(self._path, f"this is not the journal of a search: {error}") from error

    def append_logs(self, logs: list[dict[str, Any]]) -> None:
        if not _ends_whole(self._path):
            self._lock.acquire()  # another may be writing right now: look when it is done
            try:
                if not _ends_whole(self._path):
                    whole, newline, _ = self._path.read_bytes().rpartition(b"\n")
                    os.truncate(self._path, len(whole) + len(newline))
            finally:
                self._lock.release()
        self._backend.append_logs(logs)


def _ends_whole(path: Path) -> bool:
    with path.open("rb") as stream:
        if stream.seek(0, os.SEEK_END) == 0:
            return True
        stream.seek(-1, os.SEEK_END)
        return stream.read() == b"\n"
