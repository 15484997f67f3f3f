"""Why a rank ended, and how the news reaches status.json when it was not rank 0."""

from __future__ import annotations

import errno
import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from rtdetr_slurm.contract import ExitCode, FailureClass
from rtdetr_slurm.errors import ActionError
from rtdetr_slurm.files import write_atomic
from rtdetr_slurm.records import BadRecord, Prose, checked, read_json
from rtdetr_slurm.runs.failures import ONE_VALUE, Failure

NOTE_PATTERN = ".failure-rank-*.json"
"""Notes that failed ranks leave in the results folder for the launching process of node 0."""

_OUT_OF_MEMORY = (FailureClass.OOM_GPU, FailureClass.OOM_HOST)


@dataclass(frozen=True)
class RankFailure:
    """Why a rank ended.

    Attributes:
        reason: what happened, as status.json has it.
        expected: the reason says all; otherwise the traceback in the log is needed.
        by_peer: only a consequence of another rank's end.
        time: seconds since the epoch, to find the first of several.
        node_rank: number of the node at fault, where that is known.
    """

    rank: int
    failure_class: FailureClass
    reason: Prose
    exit_code: int = ExitCode.FAILED
    expected: bool = True
    by_peer: bool = False
    time: float = 0.0
    node_rank: int | None = None

    def __str__(self) -> str:
        """The reason as a person is told it: where it is PyTorch's own, with what to do about
        it."""
        if self.failure_class in _OUT_OF_MEMORY or ONE_VALUE in self.reason:
            return f"{self.reason.rstrip('. ')}; {Failure(self.failure_class, self.reason).advice}"
        return self.reason


def is_no_space(error: OSError) -> bool:
    """Whether a disk, quota or file size limit was met."""
    return error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


def no_space(error: OSError, path: object) -> str:
    """The message for a disk, quota or file size limit that was met."""
    return (
        f"no space left to write {path or 'a file of this run'} ({error.strerror}): free some or "
        "choose another results_dir; a larger train.checkpoint_interval writes fewer checkpoints"
    )


def writing_error(error: OSError, path: Path) -> ActionError:
    """The error for a file of the results folder that could not be written."""
    if is_no_space(error):
        return ActionError(no_space(error, path))
    return ActionError(f"cannot write {path}: {error.strerror}")


def leave_note(results_dir: Path, failure: RankFailure) -> None:
    """Write down a rank's failure for `read_notes`; a folder that takes no file gets none."""
    path = results_dir / NOTE_PATTERN.replace("*", str(failure.rank))
    try:
        write_atomic(path, json.dumps(asdict(failure)))
    except OSError as error:
        print(f"rtdetr: cannot write {path}: {error.strerror}", flush=True)


def read_notes(results_dir: Path) -> list[RankFailure]:
    """The failures noted by ranks, oldest first; what is no such note is told and left out."""
    failures = []
    for path in results_dir.glob(NOTE_PATTERN):
        try:
            failures.append(checked(RankFailure, read_json(path), path))
        except (BadRecord, FileNotFoundError) as error:
            print(f"rtdetr: {error}", flush=True)
    return sorted(failures, key=lambda failure: failure.time)


def remove_notes(results_dir: Path) -> None:
    for path in results_dir.glob(NOTE_PATTERN):
        path.unlink(missing_ok=True)


def root_cause(failures: Sequence[RankFailure]) -> RankFailure | None:
    """The first failure that is not the consequence of another."""
    own = [failure for failure in failures if not failure.by_peer]
    return min(own or failures, key=lambda failure: failure.time, default=None)
