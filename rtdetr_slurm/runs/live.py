"""progress.json: what rank 0 of an action does at this moment, and what the time of its starts went
into. Standard library only.

It is written for people who watch: replaced every few seconds, never needed to go on, and no proof
of anything. One that cannot be read, or is of another version, is as good as none.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from datetime import datetime, timezone
from pathlib import Path
from typing import TypedDict

from rtdetr_slurm.contract import PROGRESS_JSON, PROGRESS_VERSION
from rtdetr_slurm.errors import RequestError
from rtdetr_slurm.files import write_atomic
from rtdetr_slurm.records import Moment, Prose, checked, read_json

STARTING = ("container", "imports", "data", "model")
"""What a start is busy with before its first step, in this order."""
WORKING = ("stepping", "validating", "saving")
_LONGEST_S = 1e13
"""Beyond all dates that there are: sums of such times stay numbers, and can be shown."""


class LiveSummary(TypedDict):
    """What `--json` says of a running stage."""

    phase: Prose
    epoch: int | None
    epochs: int | None
    step: int
    steps: int
    loss: float | None
    images_per_second: float | None
    eta_s: float | None
    best_val_mAP: float | None
    device: str
    updated: str


@dataclass(frozen=True)
class StartTimes:
    """What the time of one start went into, as far as rank 0 knows.

    Attributes:
        restart: its number.
        updated: when rank 0 last said so.
        seconds: of each of STARTING and WORKING.
        loader_wait: seconds of stepping and validating in which a batch was waited for.
    """

    restart: int
    updated: Moment
    seconds: Mapping[str, float]
    loader_wait: float = 0.0

    def __post_init__(self) -> None:
        """Raises ValueError for what is no length of time."""
        check_seconds(self.loader_wait, *self.seconds.values())


@dataclass(frozen=True)
class Live:
    """What rank 0 does.

    Attributes:
        claim: under which it writes to the folder.
        device: `cuda` or `cpu`.
        phase: one of the engine's.
        epoch: counted from 0; None where there are none. epochs: in all.
        step, steps: of the phase, or of the epoch.
        loss, images_per_second: over the last steps.
        eta_s: seconds to the end of the training.
        best: the best val_mAP so far.
        start: the present one's times. earlier: those before it.
    """

    claim: str
    device: str
    phase: Prose
    start: StartTimes
    epoch: int | None = None
    epochs: int | None = None
    step: int = 0
    steps: int = 0
    loss: float | None = None
    images_per_second: float | None = None
    eta_s: float | None = None
    best: float | None = None
    earlier: tuple[StartTimes, ...] = field(default_factory=tuple)

    def __post_init__(self) -> None:
        """Raises ValueError for what is no length of time."""
        check_seconds(self.eta_s or 0.0)

    def to_json(self) -> LiveSummary:
        return {
            "phase": self.phase,
            "epoch": self.epoch,
            "epochs": self.epochs,
            "step": self.step,
            "steps": self.steps,
            "loss": self.loss,
            "images_per_second": self.images_per_second,
            "eta_s": self.eta_s,
            "best_val_mAP": self.best,
            "device": self.device,
            "updated": self.start.updated,
        }

    @property
    def starts(self) -> tuple[StartTimes, ...]:
        return (*self.earlier, self.start)

    @property
    def age_s(self) -> float:
        """Seconds since it was written, by the clocks of two machines."""
        then = datetime.fromisoformat(self.start.updated)
        return (datetime.now(timezone.utc) - then).total_seconds()


def check_seconds(*values: float) -> None:
    """Raise ValueError unless all are lengths of time."""
    for value in values:
        if not 0 <= value <= _LONGEST_S:
            raise ValueError(f"found {value}; expected seconds")


def read_live(folder: Path, claim: str) -> Live | None:
    """What was last written under a claim; None when that is nothing, or cannot be read."""
    path = folder / PROGRESS_JSON
    try:
        content = read_json(path)
        if not isinstance(content, dict) or content.pop("schema_version", 0) != PROGRESS_VERSION:
            return None
        live = checked(Live, content, path)
    except (FileNotFoundError, RequestError):
        return None
    return live if live.claim == claim else None


def write_live(folder: Path, live: Live) -> None:
    """Replace the file.

    Raises:
        OSError: it cannot be written.
    """
    content = {"schema_version": PROGRESS_VERSION, **asdict(live)}
    write_atomic(folder / PROGRESS_JSON, json.dumps(content) + "\n")
