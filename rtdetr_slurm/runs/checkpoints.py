"""Which checkpoint is meant, and whether it is whole. Standard library only.

A .pth file is a zip archive; its CRCs tell a complete file from a torn one without torch.
"""

from __future__ import annotations

import re
import zipfile
import zlib
from dataclasses import dataclass
from pathlib import Path

from rtdetr_slurm.contract import CHECKPOINT_GLOB, INTERRUPTED_CHECKPOINT, STATUS_JSON, Kpi
from rtdetr_slurm.runs.status import read_status

_EPOCH = re.compile(r"model_epoch_(\d+)\.pth")


@dataclass(frozen=True)
class Checkpoint:
    """A checkpoint file; `epoch` is None for the one written by an interruption."""

    path: Path
    epoch: int | None
    metric: float | None = None


def verify_checkpoint(path: Path) -> str | None:
    """None when `path` is a whole torch checkpoint, else what is wrong with it."""
    try:
        with zipfile.ZipFile(path) as archive:
            if not any(name.endswith("/data.pkl") for name in archive.namelist()):
                return f"{path} is a zip archive but not a torch checkpoint"
            broken = archive.testzip()
    except (OSError, zipfile.BadZipFile, zlib.error, EOFError) as error:
        return f"{path} cannot be read: {error}"
    return f"{path} is damaged (record {broken} fails its checksum)" if broken else None


def list_checkpoints(results_dir: Path) -> list[Checkpoint]:
    """The epoch checkpoints of a results folder, by epoch, with the val_mAP of their epoch."""
    metrics = _metric_by_epoch(results_dir)
    found = []
    for path in results_dir.glob(CHECKPOINT_GLOB):
        if match := _EPOCH.fullmatch(path.name):
            epoch = int(match[1])
            found.append(Checkpoint(path, epoch, metrics.get(epoch)))
    return sorted(found, key=lambda c: c.epoch or 0)


def best_checkpoint(results_dir: Path) -> Checkpoint | None:
    """The whole checkpoint with the highest val_mAP; None when no checkpoint has one."""
    scored = [c for c in list_checkpoints(results_dir) if c.metric is not None]
    scored.sort(key=lambda c: (c.metric or 0.0, c.epoch or 0), reverse=True)
    return next((c for c in scored if verify_checkpoint(c.path) is None), None)


def last_checkpoint(results_dir: Path) -> Checkpoint | None:
    """The whole checkpoint of the latest epoch."""
    newest_first = reversed(list_checkpoints(results_dir))
    return next((c for c in newest_first if verify_checkpoint(c.path) is None), None)


def resumable_checkpoint(results_dir: Path) -> Checkpoint | None:
    """Where an interrupted training goes on: the interruption's own checkpoint, else the last."""
    interrupted = results_dir / INTERRUPTED_CHECKPOINT
    if interrupted.exists() and verify_checkpoint(interrupted) is None:
        return Checkpoint(interrupted, None)
    return last_checkpoint(results_dir)


def _metric_by_epoch(results_dir: Path) -> dict[int, float]:
    """val_mAP per epoch as status.json has it; the newest line of an epoch counts."""
    metrics: dict[int, float] = {}
    for line in read_status(results_dir / STATUS_JSON):
        value, epoch = (line.get("kpi") or {}).get(Kpi.VAL_MAP), line.get("epoch")
        if isinstance(value, int | float) and isinstance(epoch, int):
            metrics[epoch] = float(value)
    return metrics
