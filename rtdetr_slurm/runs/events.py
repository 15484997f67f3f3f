"""What happened to a run: one append-only file per writer, merged on reading.

Appending is not atomic on NFS, so no two processes ever write the same file. Standard library only.
"""

from __future__ import annotations

import os
import re
import secrets
from collections.abc import Sequence
from datetime import datetime, timezone
from functools import cache
from heapq import merge
from pathlib import Path
from typing import Any

from rtdetr_slurm.contract import EVENT_VERSION
from rtdetr_slurm.files import append_json_line, read_json_lines, refuse_newer

Event = dict[str, Any]
"""`event` (submitting, submitted, refused, unclear, withdrawn, started, resolved, requeued,
cancelling, not_cancelled, finished), `timestamp`, `schema_version`, and what belongs to it: mostly
stage, task, job_id."""


def record_event(folder: Path, event: str, **data: Any) -> None:
    """Append an event to the file of this process.

    Raises:
        OSError: it cannot be written.
    """
    now = datetime.now(timezone.utc).isoformat(timespec="milliseconds")
    entry = {"schema_version": EVENT_VERSION, "timestamp": now, "event": event, **data}
    append_json_line(folder / writer_file(os.getpid()), entry)


@cache
def writer_file(pid: int) -> str:
    """The file that a process of this machine alone writes; the chance in it outlives pid reuse."""
    host = re.sub(r"[^A-Za-z0-9.-]", "-", os.uname().nodename)
    return f"{host}-{pid}-{secrets.token_hex(4)}.jsonl"


def read_events(folder: Path) -> list[Event]:
    """The events of all writers, merged by time; each writer's own stay in their order.

    Clocks of nodes differ: what must not depend on that goes by the number of the start
    (`restart`), not by the order here.

    Raises:
        NewerVersion: a newer rtdetr-slurm has written here.
    """
    writers = [_in_time(_checked(path)) for path in sorted(folder.glob("*.jsonl"))]
    return [event for _, event in merge(*writers, key=lambda pair: pair[0])]


def _checked(path: Path) -> list[Event]:
    events = [e for e in read_json_lines(path) if _is_event(e)]
    refuse_newer(path, events, EVENT_VERSION)
    return events


def _is_event(entry: Event) -> bool:
    return (
        isinstance(entry.get("event"), str)
        and isinstance(entry.get("timestamp"), str)
        and isinstance(entry.get("schema_version"), int)
    )


def _in_time(events: Sequence[Event]) -> list[tuple[str, Event]]:
    """Each event with the latest time so far, so that a clock set back does not reorder them."""
    latest, keyed = "", []
    for event in events:
        latest = max(latest, event["timestamp"])
        keyed.append((latest, event))
    return keyed
