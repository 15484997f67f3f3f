"""The last line of status.json, where the rank that it is about could not write it."""

from __future__ import annotations

import sys
import time
from collections.abc import Sequence
from pathlib import Path

from rtdetr_slurm.contract import STATUS_JSON, ExitCode, FailureClass
from rtdetr_slurm.engine.process.failures import (
    RankFailure,
    leave_note,
    read_notes,
    remove_notes,
    root_cause,
)
from rtdetr_slurm.runs.claim import Start
from rtdetr_slurm.runs.status import StatusLog, is_terminal, read_status

NOTE_SECONDS = 10.0
"""How long node 0 waits for the note of the rank that failed first, when all its own only lost
the connection."""


class StatusEnd:
    """Writes the FAILURE line that a rank could not write: it was not rank 0, or it was killed.

    Only node 0 writes to status.json; the others leave notes for it.

    Args:
        folder: with the status.json.
        node_rank: as the launch has it, which may be no number.
        start: whose end it is; known to node 0.
    """

    def __init__(self, folder: Path, node_rank: str, start: Start | None) -> None:
        self.folder, self.node_rank = folder, node_rank
        self.is_main = node_rank == "0"
        self.start = start
        self.status = StatusLog(folder / STATUS_JSON, start)

    def failed(self, failure_class: FailureClass, reason: str) -> None:
        """End status.json with a FAILURE, unless this start has ended it already."""
        if not self.is_main:
            rank = int(self.node_rank) if self.node_rank.isdecimal() else 1
            leave_note(self.folder, RankFailure(rank, failure_class, reason, time=time.time()))
        elif not self.is_over():
            self.status.fail(failure_class, reason)

    def is_over(self) -> bool:
        """Whether this start has written a last line."""
        start, lines = self.status.start, read_status(self.status.path)
        return start is not None and any(is_terminal(one) for one in lines if start.wrote(one))

    def explain(self, local: Sequence[RankFailure]) -> None:
        """Find the first failure of all ranks and see that status.json has it."""
        for failure in local:
            print(f"rtdetr: error: {failure}", file=sys.stderr, flush=True)
        if not self.is_main:
            for failure in local:
                leave_note(self.folder, failure)
            return
        cause: RankFailure | None = None
        deadline = time.monotonic() + NOTE_SECONDS
        while not self.is_over():
            cause = root_cause([*local, *read_notes(self.folder)])
            if (cause is not None and not cause.by_peer) or time.monotonic() > deadline:
                break
            time.sleep(0.2)
        if not self.is_over():
            cause = cause or RankFailure(0, FailureClass.UNKNOWN, "a rank failed without a word")
            if cause.exit_code == ExitCode.BAD_REQUEST:
                print(f"rtdetr: error: {cause}", file=sys.stderr, flush=True)
            self.status.fail(cause.failure_class, cause.reason, node_rank=cause.node_rank)
        remove_notes(self.folder)
