"""Failures of ranks, and which of them came first."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from rtdetr_slurm.contract import FailureClass
from rtdetr_slurm.engine.process import failures
from rtdetr_slurm.engine.process.failures import (
    RankFailure,
    leave_note,
    read_notes,
    root_cause,
)


class TestFailures:
    def note(self, rank: int, when: float, **fields: Any) -> RankFailure:
        return RankFailure(rank, FailureClass.UNKNOWN, f"rank {rank}", time=when, **fields)

    def test_root_cause_is_the_first_own_failure(self) -> None:
        first, second = self.note(3, 2.0), self.note(1, 3.0)
        peer = self.note(0, 1.0, by_peer=True)
        assert root_cause([peer, second, first]) == first
        assert root_cause([peer]) == peer
        assert root_cause([]) is None

    def test_notes_come_back(self, tmp_path: Path) -> None:
        notes = [self.note(2, 5.0), self.note(1, 7.0, by_peer=True)]
        for note in reversed(notes):
            leave_note(tmp_path, note)
        assert read_notes(tmp_path) == notes
        failures.remove_notes(tmp_path)
        assert read_notes(tmp_path) == []
