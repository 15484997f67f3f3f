"""status.json: the line-per-event record of one action, in TAO's format. Standard library only.

Each line is one JSON object with TAO's keys (date, time, status, verbosity, and where they
apply message, kpi, epoch, ...), to which `timestamp` (ISO 8601, UTC) and `schema_version` are
added. KPI values are numbers. The last line of an ended action is SUCCESS, FAILURE (with
`failure_class` and `reason`) or PREEMPTED. `claim` and `restart` say which start wrote a line.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from datetime import datetime, timezone
from pathlib import Path
from typing import Any, TypedDict

from rtdetr_slurm.contract import STATUS_JSON, STATUS_VERSION, FailureClass, Status
from rtdetr_slurm.files import append_json_line
from rtdetr_slurm.records import Moment, Prose, checked_lines
from rtdetr_slurm.runs.claim import Start, check_latest, latest_start, mark_ended
from rtdetr_slurm.runs.tao import as_ours

_TERMINAL = frozenset(s.value for s in (Status.SUCCESS, Status.FAILURE, Status.PREEMPTED))


class StatusLine(TypedDict, total=False):
    """One line of a status.json, with all that somebody reads of it.

    `kpi`: numbers; TAO also writes them as text, which nobody reads. `eta`: TAO's `h:mm:ss.micro`.
    """

    schema_version: int
    timestamp: Moment
    status: Prose
    message: Prose
    reason: Prose
    failure_class: Prose
    claim: str
    restart: int
    node_rank: int
    epoch: int
    max_epoch: int
    eta: Prose
    kpi: Mapping[str, float | str | None]


class StatusLog:
    """Appends lines to one status.json; at any time exactly one process may write it.

    Args:
        start: whose lines they are; it is in each of them, and a start that is no longer the
            latest in this folder writes none.
    """

    def __init__(self, path: Path, start: Start | None = None) -> None:
        self.path, self.start = path, start

    def write(
        self,
        status: Status,
        message: str = "",
        *,
        kpi: Mapping[str, float] | None = None,
        verbosity: str = "INFO",
        **data: Any,
    ) -> None:
        """Append one line.

        Args:
            kpi: metric name to value; a value that is not finite is recorded as null, because
                JSON has no NaN.
            data: further keys of the line (epoch, step, time_per_epoch, ...), JSON values.

        Raises:
            OSError: the file cannot be written (no space left, folder gone).
            Superseded: the folder belongs to another start by now.
        """
        if self.start is not None:
            check_latest(self.path.parent, self.start)
        now = datetime.now(timezone.utc)
        local = now.astimezone()
        record: dict[str, Any] = {
            "date": f"{local.month}/{local.day}/{local.year}",
            "time": f"{local.hour}:{local.minute}:{local.second}",
            "status": status.value,
            "verbosity": verbosity,
            "timestamp": now.isoformat(timespec="milliseconds"),
            "schema_version": STATUS_VERSION,
            **(self.start.facts() if self.start is not None else {}),
        }
        if message:
            record["message"] = message
        record.update(data)
        if kpi:
            record["kpi"] = {k: float(v) if math.isfinite(v) else None for k, v in kpi.items()}
        append_json_line(self.path, record)

    def fail(
        self, failure_class: FailureClass, reason: str, *, node_rank: int | None = None
    ) -> None:
        """Append the FAILURE line that ends an action; `node_rank` is the node at fault, where
        that is known."""
        known: dict[str, Any] = {} if node_rank is None else {"node_rank": node_rank}
        self.write(
            Status.FAILURE,
            reason,
            verbosity="ERROR",
            failure_class=failure_class.value,
            reason=reason,
            **known,
        )


def read_status(path: Path) -> list[StatusLine]:
    """All lines of a status.json, oldest first; empty when there is none yet.

    Lines without a version are TAO's own, read in our terms.

    Raises:
        NewerVersion: a newer rtdetr-slurm has written here.
        BadRecord: it cannot be read, or a line of it has a field of another type.
    """
    return list(as_ours(line for _, line in checked_lines(StatusLine, path, STATUS_VERSION)))


def status_lines_of(path: Path, claim: str) -> list[StatusLine]:
    """The lines of a status.json that were written under one claim, by all its starts.

    A results folder that the user names may hold the record of others, also of TAO's.
    """
    return [line for line in read_status(path) if line.get("claim") == claim]


def close_status(folder: Path, claim: str, failure_class: FailureClass, reason: str) -> None:
    """Write the last line of a start that could not do so itself, where one has begun in this
    results folder; what may still live of it writes no more.

    Raises:
        OSError: the folder is not writable.
    """
    latest, path = latest_start(folder, claim), folder / STATUS_JSON
    if latest is None:
        return
    lines = status_lines_of(path, claim)
    if not lines or lines[-1].get("status") != Status.FAILURE.value:
        StatusLog(path, latest).fail(failure_class, reason)
    mark_ended(folder, latest)


def is_terminal(line: StatusLine) -> bool:
    """Whether `line` says that the action has ended."""
    return line.get("status") in _TERMINAL
