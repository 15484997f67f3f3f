"""How far the bringing of an object is. Standard library only."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import TypeAlias

from rtdetr_slurm.contract import ExitCode, FailureClass
from rtdetr_slurm.errors import UserError

_EVERY_S = 1.0


@dataclass(frozen=True)
class Progress:
    """How far the bringing of an object is.

    Attributes:
        uri: its address, fit for a record.
        bytes: of the object that have come, of `size`.
        files: that are in their place.
        waiting: for whom, who brings the same; empty: for nobody.
    """

    uri: str
    size: int
    bytes: int = 0
    files: int = 0
    waiting: str = ""

    def __str__(self) -> str:
        if self.waiting:
            return f"{self.uri}: waits for {self.waiting}, who brings it"
        percent = 100 * self.bytes / self.size if self.size else 100
        many = f", {self.files:,} files" if self.files > 1 else ""
        return (
            f"{self.uri}: {size_text(self.bytes)} of {size_text(self.size)} ({percent:.0f}%){many}"
        )


Tell: TypeAlias = Callable[[Progress], None]


def size_text(size: float) -> str:
    """Bytes for people: `1.5 GB`."""
    for unit in ("B", "kB", "MB", "GB"):
        if size < 1000:
            return f"{size:.0f} {unit}" if unit == "B" or size >= 100 else f"{size:.1f} {unit}"
        size /= 1000
    return f"{size:.1f} TB"


class Stopped(UserError):
    """The bringing was ended on request; what has come so far stays for who goes on with it."""

    exit_code = ExitCode.INTERRUPTED
    failure_class = FailureClass.PREEMPTED


class Ticker:
    """Tells of progress, at most once a second; for several threads."""

    def __init__(self, uri: str, size: int, tell: Tell, stopped: Callable[[], bool]) -> None:
        self._now, self._tell, self._stopped = Progress(uri, size), tell, stopped
        self._lock = threading.Lock()
        self._told = -_EVERY_S

    def add(self, bytes: int = 0, files: int = 0) -> None:
        with self._lock:
            now = self._now
            # A piece that is read again counts once.
            self._now = replace(
                now,
                bytes=min(now.size, now.bytes + bytes),
                files=now.files + files,
                waiting="",
            )
        self._say()

    def came(self, bytes: int) -> None:
        """Raises Stopped: on request."""
        self.add(bytes)
        self.check()

    def wait_for(self, owner: str) -> None:
        with self._lock:
            self._now = replace(self._now, waiting=owner)
        self._say()

    def at_end(self) -> None:
        with self._lock:
            self._now = replace(self._now, bytes=self._now.size)
            self._tell(self._now)

    def check(self) -> None:
        """Raises Stopped: on request."""
        if self._stopped():
            raise Stopped(f"{self._now.uri}: stopped; what has come so far is kept")

    def _say(self) -> None:
        with self._lock:
            if time.monotonic() - self._told >= _EVERY_S:
                self._told = time.monotonic()
                self._tell(self._now)
