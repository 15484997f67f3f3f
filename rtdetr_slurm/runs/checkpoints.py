"""Which checkpoint is meant, and whether it is whole. Standard library only.

A .pth file is a zip archive; its CRCs tell a complete file from a torn one without torch. An
encrypted one has a digest of its own, which tells it without the key.
"""

from __future__ import annotations

import os
import re
import zipfile
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO, TypedDict

from rtdetr_slurm.contract import (
    METRICS_JSON,
    METRICS_PATTERN,
    ONNX_SUFFIX,
    QUANTIZED_PATTERN,
    STATUS_JSON,
    Kpi,
)
from rtdetr_slurm.encryption import MAGIC, damage, is_encrypted
from rtdetr_slurm.records import BadRecord, checked, names_in, open_file, read_json
from rtdetr_slurm.resolved_spec import local_path, value_at
from rtdetr_slurm.runs.checkpoint_record import SAFETENSORS, safetensors_header
from rtdetr_slurm.runs.claim import read_claim
from rtdetr_slurm.runs.status import read_status, status_lines_of

_ZIP = b"PK"
_LEGACY_TORCH = bytes.fromhex("80028a0a6cfc9c46f9206aa850192e")
"""How torch.save began its files before they were zip archives: a pickled magic number."""
_EPOCH = re.compile(r"model_epoch_([0-9]{1,9})\.pth")
_STEP = re.compile(r"model_epoch_([0-9]{1,9})_step_([0-9]{1,12})\.pth")
_INTERRUPTED = re.compile(r"interrupted_epoch_([0-9]{1,9})_step_([0-9]{1,12})\.pth")


@dataclass(frozen=True)
class CheckpointFile:
    """A checkpoint in a results folder.

    Attributes:
        epoch: zero-based, the one that was worked on last.
        step: steps of it that are done; None: all of it, with its validation.
        metric: val_mAP of the epoch; None where it was not scored.
    """

    path: Path
    epoch: int
    step: int | None = None
    metric: float | None = None

    @property
    def progress(self) -> tuple[int, int]:
        """Epochs that are done, and steps of the next one."""
        return (self.epoch + 1, 0) if self.step is None else (self.epoch, self.step)


Verify = Callable[[Path], str | None]
"""verify_checkpoint, or one that remembers: it reads a file from end to end."""


def verify_checkpoint(path: Path) -> str | None:
    """None when `path` is a whole torch checkpoint, else what is wrong with it; of an encrypted
    one, whether it is as it was written."""
    try:
        if is_encrypted(path):
            return damage(path)
        with open_file(path) as stream, zipfile.ZipFile(stream) as archive:
            if not any(name.endswith("/data.pkl") for name in archive.namelist()):
                return f"{path} is a zip archive but not a torch checkpoint"
            broken = archive.testzip()
    except Exception as error:  # zipfile raises of many kinds on a damaged archive
        return _unreadable(path, error)
    return f"{path} is damaged (record {broken} fails its checksum)" if broken else None


def verify_weights(path: Path) -> str | None:
    """None when `path` is a whole file of weights, of a kind that the engine reads.

    PyTorch's format from before version 1.6 has no checksums: of it only the beginning is looked
    at.
    """
    try:
        with open_file(path) as stream:
            if path.suffix == SAFETENSORS:
                return _safetensors_problem(path, stream)
            start = stream.read(len(_LEGACY_TORCH))
    except (OSError, BadRecord) as error:
        return _unreadable(path, error)
    if start == _LEGACY_TORCH:
        return None
    if start.startswith(MAGIC):
        return verify_checkpoint(path)
    if not start.startswith(_ZIP):
        return f"{path} is no file of weights: allowed are PyTorch's (.pth) and .safetensors"
    return verify_checkpoint(path)


def verify_model(path: Path) -> str | None:
    """As verify_weights, but of an ONNX file, which has no checksums, nothing is asked."""
    return None if path.suffix == ONNX_SUFFIX else verify_weights(path)


def _safetensors_problem(path: Path, stream: BinaryIO) -> str | None:
    """The file is as long as its header says: length of the header, header, tensors."""
    size = os.fstat(stream.fileno()).st_size
    try:
        ends = [one["data_offsets"][1] for one in safetensors_header(stream).values()]
        expected = stream.tell() + max(ends, default=0)
    except (ValueError, AttributeError, LookupError, TypeError, RecursionError):
        return f"{path} is damaged, or no .safetensors file"
    return None if size == expected else f"{path} is damaged: {size} bytes of {expected}"


def _unreadable(path: Path, error: Exception) -> str:
    if isinstance(error, BadRecord):
        return str(error)
    why = error.strerror if isinstance(error, OSError) else None
    return f"{path} cannot be read: {why or error}"


def is_checkpoint_name(name: str) -> bool:
    """Whether a file's name says that a whole epoch is done, with its validation."""
    return epoch_of_name(name) is not None


def epoch_of_name(name: str) -> int | None:
    """The epoch that a file's name says is done, with its validation; None where it says none."""
    match = _EPOCH.fullmatch(name)
    return None if match is None else int(match[1])


def nothing_left(checkpoint: Path, num_epochs: int) -> str | None:
    """Why a training that goes on from a checkpoint has nothing to do; None where it has, and where
    the file's name does not tell.

    Args:
        num_epochs: that the training has in all.
    """
    epoch = epoch_of_name(Path(os.path.realpath(checkpoint)).name)
    if epoch is None or (done := epoch + 1) < num_epochs:
        return None
    return f"found {num_epochs}; {checkpoint} has {done} epochs done; allowed: more than that"


def list_checkpoints(results_dir: Path) -> list[CheckpointFile]:
    """The epoch checkpoints of a results folder, by epoch, with the val_mAP of their epoch."""
    metrics = kpi_by_epoch(results_dir).get(Kpi.VAL_MAP, {})
    found = []
    for name in names_in(results_dir):
        if (epoch := epoch_of_name(name)) is not None:
            found.append(CheckpointFile(results_dir / name, epoch, metric=metrics.get(epoch)))
    return sorted(found, key=lambda c: c.epoch)


def list_interrupted(results_dir: Path) -> list[CheckpointFile]:
    """The checkpoints that are not (yet) an epoch's, the furthest last."""
    return _within_epochs(results_dir, _INTERRUPTED)


def list_steps(results_dir: Path) -> list[CheckpointFile]:
    """The checkpoints within epochs that are kept, the furthest last."""
    return _within_epochs(results_dir, _STEP)


def _within_epochs(results_dir: Path, pattern: re.Pattern[str]) -> list[CheckpointFile]:
    found = []
    for name in names_in(results_dir):
        if match := pattern.fullmatch(name):
            found.append(CheckpointFile(results_dir / name, int(match[1]), step=int(match[2])))
    return sorted(found, key=lambda c: c.progress)


def best_first(checkpoints: Iterable[CheckpointFile]) -> list[CheckpointFile]:
    """Those that were scored, the highest val_mAP first; of equals the later epoch."""
    scored = [(c.metric, c.epoch, c) for c in checkpoints if c.metric is not None]
    return [c for *_, c in sorted(scored, key=lambda entry: entry[:2], reverse=True)]


def best_checkpoint(results_dir: Path, verify: Verify = verify_checkpoint) -> CheckpointFile | None:
    """The whole checkpoint with the highest val_mAP; None when no checkpoint has one."""
    return _first_whole(iter(best_first(list_checkpoints(results_dir))), verify)


def last_checkpoint(results_dir: Path, verify: Verify = verify_checkpoint) -> CheckpointFile | None:
    """The whole checkpoint of the latest epoch."""
    return _first_whole(reversed(list_checkpoints(results_dir)), verify)


def resume_candidates(results_dir: Path) -> list[CheckpointFile]:
    """All that a training in this folder could go on from, the furthest first.

    An interruption's file may still lie beside the epoch that has superseded it, when the process
    ended between writing the one and removing the other; then the epoch is the further one.
    """
    within = (*list_steps(results_dir), *list_interrupted(results_dir))
    found = [*list_checkpoints(results_dir), *within]
    return sorted(found, key=lambda c: c.progress, reverse=True)


def resume_point(
    results_dir: Path, verify: Verify = verify_checkpoint
) -> tuple[CheckpointFile | None, list[str]]:
    """Where a training that was interrupted goes on: the furthest whole checkpoint.

    The one rule for whoever asks: the stage run that requeues and the engine that resumes.

    Returns:
        The checkpoint, None where there is none, and what is wrong with those passed over.
    """
    problems: list[str] = []
    for candidate in resume_candidates(results_dir):
        problem = verify(candidate.path)
        if problem is None:
            return candidate, problems
        problems.append(problem)
    return None, problems


RESUME_FIELD = "train.resume_training_checkpoint_path"


def resumed_checkpoint(spec: Mapping[str, Any]) -> Path | None:
    """The file that a resolved spec's train.resume_training_checkpoint_path names; None where it
    names none, or one that this machine has yet to fetch."""
    value = value_at(spec, RESUME_FIELD)
    return local_path(value) if value else None


def in_the_way(results_dir: Path, resumed: Path | None) -> str | None:
    """Why a training must not begin in this folder; None when nothing is in its way.

    A folder holds one training, whole or in parts: one that begins where checkpoints are goes on
    from the furthest of them, and must say so.

    Args:
        resumed: the checkpoint that the spec resumes from.
    """
    if not resume_candidates(results_dir):
        return None
    if resumed is None or os.path.realpath(resumed.parent) != os.path.realpath(results_dir):
        return (
            f"{results_dir} already holds checkpoints of a training: choose another results_dir, "
            "or name the one to go on from in train.resume_training_checkpoint_path"
        )
    furthest, problems = resume_point(results_dir)
    if furthest is None:
        return f"{problems[0]}; choose another results_dir"
    if furthest.path.name != resumed.name:
        return (
            f"train.resume_training_checkpoint_path names {resumed.name}, and the furthest whole "
            f"checkpoint in {results_dir} is {furthest.path.name}: go on from that one, or choose "
            "another results_dir"
        )
    return None


def _first_whole(candidates: Iterator[CheckpointFile], verify: Verify) -> CheckpointFile | None:
    return next((c for c in candidates if verify(c.path) is None), None)


class _Measured(TypedDict):
    """Of the metrics that training keeps for an epoch."""

    thresholds: Mapping[str, float | None]


def thresholds_of(checkpoint: Path) -> dict[str, float] | None:
    """Class name to the score with the best F1, as measured after the epoch of a checkpoint, or of
    one that `quantize` has left; None where nobody has.

    Raises:
        BadRecord: the file that says so cannot be read.
    """
    epoch = epoch_of_name(checkpoint.name)
    if epoch is not None:
        path = checkpoint.with_name(METRICS_PATTERN.format(epoch=epoch))
    elif checkpoint.name.startswith(QUANTIZED_PATTERN.format(backend="")):
        path = checkpoint.with_name(METRICS_JSON)
    else:
        return None
    try:
        measured = checked(_Measured, read_json(path), path)
    except FileNotFoundError:
        return None
    found = measured["thresholds"].items()
    return {name: value for name, value in found if value is not None}


def kpi_by_epoch(results_dir: Path) -> dict[str, dict[int, float]]:
    """Name of a KPI to epoch to value, of the training that a results folder holds, as status.json
    has it; the newest line of an epoch counts.

    Lines from before that training are another's.

    Raises:
        NewerVersion, BadRecord: as read_status.
    """
    claim = read_claim(results_dir)
    path = results_dir / STATUS_JSON
    if claim is None or claim.continues:
        lines = read_status(path)
    else:
        lines = status_lines_of(path, claim.id)
    kpis: dict[str, dict[int, float]] = {}
    for line in lines:
        if (epoch := line.get("epoch")) is not None:
            for name, value in line.get("kpi", {}).items():
                if isinstance(value, int | float):
                    kpis.setdefault(name, {})[epoch] = float(value)
    return kpis
