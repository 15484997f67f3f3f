"""What NVIDIA TAO's programs leave in a results folder, read as ours. Standard library only.

Their status lines say neither which start wrote them nor, after a training, that it succeeded:
the stage run's own STARTED line, which they follow, and their last words do.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from rtdetr_slurm.contract import FailureClass, Kpi, Status
from rtdetr_slurm.records import names_in

if TYPE_CHECKING:
    from rtdetr_slurm.runs.status import StatusLine

LATEST = "*_latest.pth"
"""The links from which a training goes on that finds one, whether or not it was asked to."""
EMA_SUFFIX = "-EMA.pth"
"""Of the file beside a checkpoint, without which no training with EMA goes on."""

UNSIGNED = "unsigned"
"""In the stage run's STARTED line: lines that follow without a claim are of this start, too."""

_FINISHED = re.compile(r"[A-Z]\w* finished successfully\.?")
_GOES_ON = "Starting Training Loop."
"""The only STARTED line that is not a program's first, but comes after what it resumes."""
_RESUMES = re.compile(r"Resuming training from checkpoint: .*epoch_([0-9]{1,9})")
_CONFIG_ERRORS = (
    "Configuration error",
    "Feature not implemented",
    "Parameter validation error",
    "File system error",
    "Schema validation error",
)
"""How the messages of FAILURE lines begin whose cause is the spec or the data."""
_WHOSE = ("claim", "restart")
_TAOS_COUNTS = ("epoch", "max_epoch", "eta", "kpi")
_ENDS = frozenset(s.value for s in (Status.SUCCESS, Status.FAILURE, Status.PREEMPTED))


def as_ours(lines: Iterable[StatusLine]) -> Iterator[StatusLine]:
    """Status lines, those of TAO (without a version) in our terms.

    A line that does not say whose it is belongs to the start that has announced such lines, until
    another one says something, or it has ended itself. Epochs are counted from 0 and from what was
    gone on from, as the names of the checkpoints are: TAO's own counts differ from version to
    version. Numbers that it writes as text become numbers, and what it repeats of the line before
    is dropped.
    """
    owner: dict[str, Any] = {}
    repeated: Mapping[str, Any] = {}
    epoch, max_epoch = 0, None
    for line in lines:
        if "claim" in line:
            whose = {k: v for k, v in line.items() if k in _WHOSE}
            announced = UNSIGNED in line or (whose == owner and line.get("status") not in _ENDS)
            owner = whose if announced else {}
        mine: dict[str, Any] = {**owner, **line}
        if "schema_version" not in line:
            told, message = line.get("kpi", {}), line.get("message", "")
            fresh = {k: _number(v) for k, v in told.items() if repeated.get(k) != v}
            repeated = told
            if line.get("status") == Status.STARTED.value and message != _GOES_ON:
                epoch = 0
            if resumes := _RESUMES.match(message):
                epoch = int(resumes[1]) + 1
            # The validation of an epoch comes before its own line.
            place = {"epoch": epoch, "max_epoch": max_epoch}
            if "epoch" not in line and Kpi.VAL_MAP not in fresh:
                place = {}
            epoch += "epoch" in line
            kept = {k: v for k, v in mine.items() if k not in _TAOS_COUNTS}
            mine = {**kept, **{k: v for k, v in place.items() if v is not None}}
            if fresh:
                mine["kpi"] = fresh
        elif line.get("status") == Status.STARTED.value:
            epoch, max_epoch, repeated = 0, line.get("max_epoch"), {}
        yield cast("StatusLine", mine)


def last_word(lines: Sequence[StatusLine]) -> StatusLine | None:
    """The line of a start that tells how it ended, a success as SUCCESS and a failure with its
    class; else its last line."""
    for line in reversed(lines):
        message, status = line.get("message", ""), line.get("status")
        if "schema_version" in line or status == Status.SUCCESS.value:
            break
        if status == Status.FAILURE.value and "failure_class" not in line:
            config = message.startswith(_CONFIG_ERRORS)
            found = FailureClass.CONFIG if config else FailureClass.UNKNOWN
            return {**line, "failure_class": found.value, "reason": f"TAO says: {message}"}
        if status == Status.RUNNING.value and _FINISHED.fullmatch(message):
            return {**line, "status": Status.SUCCESS.value}
    return lines[-1] if lines else None


def latest_links(results_dir: Path) -> list[Path]:
    """The links in a results folder that a training would go on from unasked."""
    return [results_dir / name for name in names_in(results_dir) if Path(name).match(LATEST)]


def leftover(results_dir: Path) -> str | None:
    """Why TAO must not begin a training in this folder, which holds no checkpoint of an epoch."""
    links = latest_links(results_dir)
    if not links:
        return None
    return (
        f"{links[0]} is left of another training, and TAO would go on from it unasked: remove it, "
        "or choose another results_dir"
    )


def _number(value: Any) -> Any:
    try:
        number = float(value)
    except (TypeError, ValueError):
        return value
    return number if math.isfinite(number) else None
