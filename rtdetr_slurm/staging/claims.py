"""Who brings an object, of all that want it. Standard library only.

A claim is a file with a number, which one process alone can make; the highest number owns. Its
owner writes a beat into it. Who waits measures by their own clock how long the beat has stood
still, so that no two clocks are compared, and takes over with the next number. A former owner that
comes back to life finds its folder of work renamed, and what it writes goes nowhere.
"""

from __future__ import annotations

import json
import os
import shutil
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import asdict, dataclass, replace
from datetime import datetime, timezone
from pathlib import Path
from typing import Any, Literal

from rtdetr_slurm.contract import CACHE_VERSION
from rtdetr_slurm.errors import RequestError
from rtdetr_slurm.files import write_atomic, write_new
from rtdetr_slurm.records import (
    BadRecord,
    Moment,
    Prose,
    check_version,
    checked,
    names_in,
    read_json,
)
from rtdetr_slurm.runs.processes import is_alive, process_facts, user_name

BEAT_S = 10.0
DEAD_S = 180.0
"""Longer than a client of NFS goes by what it remembers (60 s), and a file server takes to come
back."""
POLL_S = 1.0
_TRIES = 4
_WORK = "work-"


@dataclass(frozen=True)
class ClaimRecord:
    """What a claim's file says.

    Attributes:
        beat: is another number every few seconds while its owner lives.
        time: of the last beat, by the owner's clock.
        state: `left`: given up, another may go on; `refused`: the object is not to be had by
            anybody, for the reason in `said`.
    """

    user: str
    host: str
    pid: int
    process_start: int | None
    time: Moment
    beat: int = 0
    state: Literal["working", "left", "refused"] = "working"
    said: Prose = ""
    schema_version: int = CACHE_VERSION

    def __str__(self) -> str:
        return f"{self.user} on {self.host} (process {self.pid})"

    @property
    def is_gone(self) -> bool:
        """Whether its owner was a process of this machine, and is no more."""
        facts = {"host": self.host, "process_start": self.process_start}
        return is_alive(str(self.pid), facts) is False


class Lost(Exception):
    """Another has taken over."""


class Claim:
    """The right to bring an object, kept alive by a thread until `leave`."""

    def __init__(self, entry: Path, number: int) -> None:
        """Raises FileExistsError: another has it."""
        pid = os.getpid()
        facts = process_facts(str(pid))
        self._record = ClaimRecord(user_name(), facts["host"], pid, facts["process_start"], _now())
        self._entry, self._number = entry, number
        self._path = _folder(entry) / str(number)
        _folder(entry).mkdir(parents=True, exist_ok=True)
        write_new(self._path, _text(self._record))
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._beat, daemon=True)
        self._thread.start()

    def work(self) -> Path:
        """The folder to work in, with what former owners have left in theirs.

        Raises:
            Lost: another has taken over meanwhile.
        """
        own = self._entry / f"{_WORK}{self._number}"
        others = sorted(
            (path for path in self._entry.glob(f"{_WORK}*") if path != own), key=_number_of
        )
        for path in reversed(others):
            if _number_of(path) > self._number:
                raise Lost
            if own.exists():
                shutil.rmtree(path, ignore_errors=True)
            else:
                with suppress(FileNotFoundError):
                    path.rename(own)
        own.mkdir(exist_ok=True)
        return own

    def check(self) -> None:
        """Raises Lost: another has taken over."""
        latest = latest_claim(self._entry)
        if latest is None or latest[0] != self._number:
            raise Lost

    def leave(self, state: Literal["left", "refused"] = "left", said: str = "") -> None:
        """Give it up, so that nobody waits for it; once."""
        if self._ended.is_set():
            return
        self._ended.set()
        self._thread.join()
        with suppress(OSError):  # then the others wait until it seems dead
            write_atomic(self._path, _text(replace(self._record, state=state, said=said)))

    def _beat(self) -> None:
        while not self._ended.wait(BEAT_S):
            self._record = replace(self._record, beat=self._record.beat + 1, time=_now())
            with suppress(OSError):  # the next may be better
                write_atomic(self._path, _text(self._record))


def acquire(
    entry: Path,
    finished: Callable[[], bool],
    on_wait: Callable[[str], None],
) -> Claim | None:
    """The right to bring an object; None: another has brought it.

    Args:
        finished: whether it is there.
        on_wait: is told for whom this waits, every second; what it raises ends the wait.

    Raises:
        RequestError: who was waited for found that nobody can have it.
    """
    seen: tuple[int, ClaimRecord] | None = None
    since = time.monotonic()
    while not finished():
        latest = latest_claim(entry)
        if latest is not None:
            number, record = latest
            if seen is not None and number == seen[0] and record.state == "refused":
                raise RequestError(record.said)
            if latest != seen:
                seen, since = latest, time.monotonic()
        stands = latest is not None and latest[1].state == "working" and not latest[1].is_gone
        if latest is None or not stands or time.monotonic() - since > DEAD_S:
            with suppress(FileExistsError):
                return Claim(entry, latest[0] + 1 if latest else 1)
        else:
            on_wait(str(latest[1]))
        time.sleep(POLL_S)
    return None


def latest_claim(entry: Path) -> tuple[int, ClaimRecord] | None:
    """Number and content of the claim that counts; None where there is none.

    Raises:
        BadRecord: it cannot be read.
    """
    numbers = [int(name) for name in names_in(_folder(entry)) if name.isdecimal()]
    if not numbers:
        return None
    path = _folder(entry) / str(max(numbers))
    try:
        data = _read(path)
    except FileNotFoundError:
        return None  # removed this moment, with all of it
    check_version(data, path, CACHE_VERSION)
    return max(numbers), checked(ClaimRecord, data, path)


def _read(path: Path) -> Any:
    """A claim that is replaced while it is read: NFS then says that there is none such."""
    for _ in range(_TRIES - 1):
        with suppress(BadRecord):
            return read_json(path)
        time.sleep(POLL_S / 10)
    return read_json(path)


def work_folders(entry: Path) -> list[Path]:
    """Of all who have begun and not finished."""
    return [*entry.glob(f"{_WORK}*")]


def _number_of(path: Path) -> int:
    number = path.name.removeprefix(_WORK)
    if not number.isdecimal():
        raise BadRecord(path, "this is not from here")
    return int(number)


def _folder(entry: Path) -> Path:
    return entry / "claims"


def _text(record: ClaimRecord) -> str:
    return json.dumps(asdict(record)) + "\n"


def _now() -> str:
    return datetime.now(timezone.utc).isoformat(timespec="seconds")
