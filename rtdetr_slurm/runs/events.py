"""What happened to a run: one append-only file per writer, merged on reading.

Appending is not atomic on NFS, so no two processes ever write the same file. Standard library only.
"""

from __future__ import annotations

import json
import os
import re
import secrets
import time
from collections.abc import Mapping, Sequence
from datetime import datetime, timezone
from functools import cache
from heapq import merge
from itertools import count
from pathlib import Path
from typing import Any, Literal, TypedDict

from rtdetr_slurm.contract import EVENT_VERSION, FailureClass
from rtdetr_slurm.files import append_json_line, write_new
from rtdetr_slurm.records import (
    BadRecord,
    Moment,
    Prose,
    checked_lines,
    names_in,
)
from rtdetr_slurm.runs.checkpoints import is_checkpoint_name
from rtdetr_slurm.slurm.job_ids import is_job_id
from rtdetr_slurm.slurm.names import is_host

_LOOKS, _LOOK_EVERY_S = 10, 0.1
"""A line that is being written is whole by then."""


class RecordedCheckpoint(TypedDict):
    """A checkpoint as a stage's end has verified it; `file` is a name in its results folder."""

    file: str
    epoch: int
    metric: float | None
    sha256: str


class RecordedCheckpoints(TypedDict, total=False):
    best: RecordedCheckpoint
    last: RecordedCheckpoint


class TakenInput(TypedDict, total=False):
    """A field of the spec that was filled when a stage started; of a file, with its digest."""

    field: str
    value: str
    sha256: str | None


class _Stamp(TypedDict):
    schema_version: int
    timestamp: Moment
    event: str
    """submitting, resumed, submitted, refused, unclear, withdrawn, started, resolved, requeued,
    cancelling, not_cancelled, finished, told; of a search also extended, stopping, going_on"""


class Event(_Stamp, total=False):
    """One line of an event file, with all that somebody reads of it."""

    stage: str
    task: int
    search: str
    """Of what is about a search, and no job of it: the stage that searches."""
    trial: int
    """Of the stage that finds the best trial: which that is."""
    worker: int
    """Of a trial: the task of the array that trains it."""
    trials: int
    gpu_hours: float
    deadline: Moment
    """Of an extension: what is added to the budget, and the deadline that holds from then on."""
    job_id: str
    cluster: str
    restart: int
    """Number of the start that it belongs to; of what is not about a start: of the submission's
    first one."""
    tasks: list[int]
    """Of a submission of some tasks of an array."""
    reason: Prose
    state: Literal["success", "failed", "cancelled"]
    ended: Moment
    """Of an end that a reader has recorded: when it was, where the scheduler said so."""
    failure_class: FailureClass
    checkpoints: RecordedCheckpoints
    made: Mapping[str, str]
    """Of an end: files that the action has left, with their digests."""
    inputs: list[TakenInput]
    values: Mapping[str, Any]
    """Of what comes after a search: what the best trial has in the spec, by dotted path."""
    manifest_sha256: str
    """Of a start: of run.json."""
    recorded_by: Prose
    host: str
    pid: int
    process_start: int | None
    reached: list[int]
    seconds_before: float
    last_sign: Moment
    """Of a start: when one before it last said that it lives."""
    bad_nodes: list[str]
    excluded: list[str]
    refusal: Prose
    misplaced: bool
    by_slurm: bool


def record_event(folder: Path, event: str, **data: Any) -> None:
    """Append an event to the file of this process.

    Raises:
        OSError: it cannot be written.
    """
    append_json_line(folder / writer_file(os.getpid()), _entry(event, data))


def record_once(folder: Path, name: str, event: str, **data: Any) -> bool:
    """Record an event in a file of its own, unless there is one of that name already.

    Returns:
        Whether it was this call that recorded it.

    Raises:
        OSError: it cannot be written.
    """
    text = json.dumps(_entry(event, data)) + "\n"
    for number in count():
        path = folder / (f"{name}.{number}.jsonl" if number else f"{name}.jsonl")
        try:
            write_new(path, text)
        except FileExistsError:
            if not _is_torn(path):
                return False
        else:
            return True
    raise AssertionError


def _is_torn(path: Path) -> bool:
    """Whether a writer was killed in the middle of it, which can be where there are no links."""
    for _ in range(_LOOKS):
        if path.read_bytes().endswith(b"\n"):
            return False
        time.sleep(_LOOK_EVERY_S)
    return True


def _entry(event: str, data: Mapping[str, Any]) -> dict[str, Any]:
    now = datetime.now(timezone.utc).isoformat(timespec="microseconds")
    return {"schema_version": EVENT_VERSION, "timestamp": now, "event": event, **data}


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
        BadRecord: a file or a line of it cannot be read.
    """
    files = [folder / name for name in names_in(folder) if name.endswith(".jsonl")]
    writers = [_in_time(_events_of(path)) for path in files]
    return [event for _, event in merge(*writers, key=lambda pair: pair[0])]


def _events_of(path: Path) -> list[Event]:
    lines = checked_lines(Event, path, EVENT_VERSION)
    for number, event in lines:
        _check_event(path, number, event)
    return [event for _, event in lines]


def _check_event(path: Path, number: int, event: Event) -> None:
    """Refuse an event that lacks what its kind has, or whose values are not what they are for."""
    # Both go into commands and paths.
    if "job_id" in event and not is_job_id(event["job_id"]):
        raise BadRecord(path, f"job_id: {event['job_id']!r} is no job id", number)
    if "cluster" in event and not is_host(event["cluster"]):
        raise BadRecord(path, f"cluster: {event['cluster']!r} is no cluster's name", number)
    for name in (*event.get("bad_nodes", ()), *event.get("excluded", ())):
        if not is_host(name):
            raise BadRecord(path, f"excluded: {name!r} is no name of a node", number)
    if event["event"] == "submitted" and "job_id" not in event:
        raise BadRecord(path, "job_id: this field is missing", number)
    if event["event"] == "finished":
        needed = ("state",) if event.get("state") == "success" else ("state", "failure_class")
        for name in needed:
            if name not in event:
                raise BadRecord(path, f"{name}: this field is missing", number)
    checkpoints = event.get("checkpoints", {})
    for one in (checkpoints.get("best"), checkpoints.get("last")):
        if one is not None and not is_checkpoint_name(one["file"]):
            raise BadRecord(path, f"checkpoints: {one['file']!r} is no checkpoint's name", number)


def _in_time(events: Sequence[Event]) -> list[tuple[str, Event]]:
    """Each event with the latest time so far, so that a clock set back does not reorder them."""
    latest, keyed = "", []
    for event in events:
        latest = max(latest, event["timestamp"])
        keyed.append((latest, event))
    return keyed
