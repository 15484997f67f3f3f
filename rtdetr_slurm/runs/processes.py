"""Processes, known by host, id and start time, so that a later one with the same id is not taken
for them. Standard library only."""

from __future__ import annotations

import os
import pwd
from collections.abc import Mapping
from pathlib import Path
from typing import Any


def process_facts(pid: str) -> dict[str, Any]:
    """What tells this process from a later one with the same id: host and start time (ticks)."""
    return {"host": os.uname().nodename, "process_start": _start_time(pid)}


def is_alive(pid: str, facts: Mapping[str, Any]) -> bool | None:
    """Whether the process that had these `process_facts` lives; None on another machine than its
    own, and where this one shows nothing of a process with that id but that there is one."""
    if facts.get("host") != os.uname().nodename:
        return None
    start = _start_time(pid)
    if start is None and _is_hidden(pid):
        return None
    return start is not None and start == facts.get("process_start")


def user_name() -> str:
    """Of the user that this process belongs to."""
    try:
        return pwd.getpwuid(os.getuid()).pw_name
    except KeyError:  # an id without a passwd entry, as in some containers
        return str(os.getuid())


def _start_time(pid: str) -> int | None:
    """Field 22 of /proc/PID/stat; None when there is no such process, only its zombie, or one that
    is not shown."""
    try:
        text = Path(f"/proc/{pid}/stat").read_text()
    except (FileNotFoundError, ProcessLookupError, PermissionError):
        return None
    # The command name stands in parentheses and may hold anything, also spaces and ')'.
    fields = text.rpartition(")")[2].split()
    return None if fields[0] == "Z" else int(fields[19])


def _is_hidden(pid: str) -> bool:
    """Whether this is another user's process, where /proc may show each user only their own (its
    option hidepid)."""
    try:
        os.kill(int(pid), 0)
    except PermissionError:
        return True
    except (ValueError, OverflowError, ProcessLookupError):
        pass
    return False
