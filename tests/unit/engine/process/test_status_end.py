"""The last line of status.json."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from rtdetr_slurm.contract import FailureClass
from rtdetr_slurm.engine.process.failures import (
    RankFailure,
    leave_note,
    read_notes,
)
from rtdetr_slurm.engine.process.status_end import StatusEnd
from rtdetr_slurm.runs.claim import Start
from rtdetr_slurm.runs.status import read_status


class TestStatusEnd:
    def note(self, rank: int, when: float, **fields: Any) -> RankFailure:
        return RankFailure(rank, FailureClass.UNKNOWN, f"rank {rank}", time=when, **fields)

    def test_node_0_writes_the_end_once(self, tmp_path: Path) -> None:
        ending = StatusEnd(tmp_path, "0", Start("x"))
        leave_note(tmp_path, self.note(2, 1.0))
        ending.explain([self.note(0, 0.5, by_peer=True)])
        ending.explain([self.note(1, 9.0)])
        path = tmp_path / "status.json"
        assert len(path.read_text().splitlines()) == 1
        assert read_status(path)[-1]["reason"] == "rank 2"

    def test_other_nodes_leave_notes(self, tmp_path: Path) -> None:
        StatusEnd(tmp_path, "1", None).explain([self.note(5, 1.0)])
        assert not (tmp_path / "status.json").exists()
        assert [note.rank for note in read_notes(tmp_path)] == [5]

    def test_another_node_that_cannot_start_leaves_a_note_of_its_own(self, tmp_path: Path) -> None:
        StatusEnd(tmp_path, "3", None).failed(FailureClass.INFRA, "no GPU here")
        assert not (tmp_path / "status.json").exists()
        assert [(note.rank, note.reason) for note in read_notes(tmp_path)] == [(3, "no GPU here")]
