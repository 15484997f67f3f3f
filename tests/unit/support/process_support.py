"""Which processes are there, for the tests that see to it that none is left."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any


def wait_until(condition: Callable[[], Any], seconds: float = 60) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "waited in vain"
        time.sleep(0.05)


def pids_in(folder: Path, number: int) -> list[int]:
    """The process ids that so many processes have written to files of `folder`."""

    def texts() -> list[str]:
        return [text for path in folder.iterdir() if (text := path.read_text().strip())]

    wait_until(lambda: len(texts()) == number, 30)
    return [int(text) for text in texts()]


def is_running(pid: int) -> bool:
    """Whether there is such a process, and more of it than its exit code."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def children(parent: int) -> set[int]:
    """Process ids of the direct children of a process."""
    found = set()
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            # "pid (command) state ppid ..."; the command may hold anything but ends at the last ")"
            fields = stat.read_text().rpartition(")")[2].split()
        except OSError:  # it has ended meanwhile
            continue
        if int(fields[1]) == parent:
            found.add(int(stat.parent.name))
    return found


def gone(pids: Iterable[int], seconds: float = 5) -> None:
    """See that all of these processes end."""
    left = set(pids)
    wait_until(lambda: not [pid for pid in left if is_running(pid)], seconds)
