"""What happened to a run, told by many writers."""

from __future__ import annotations

import json
import subprocess
import sys
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest

from rtdetr_slurm.errors import RequestError
from rtdetr_slurm.runs.events import read_events, record_event


def line(timestamp: str, event: str, **data: Any) -> str:
    return json.dumps({"schema_version": 1, "timestamp": timestamp, "event": event, **data}) + "\n"


def names(folder: Path) -> list[str]:
    return [event["event"] for event in read_events(folder)]


def test_events_are_kept_in_order(tmp_path: Path) -> None:
    record_event(tmp_path, "submitting", stage="train")
    record_event(tmp_path, "submitted", stage="train", job_id="7")
    assert [(e["event"], e.get("job_id")) for e in read_events(tmp_path)] == [
        ("submitting", None),
        ("submitted", "7"),
    ]
    assert datetime.fromisoformat(read_events(tmp_path)[0]["timestamp"]).tzinfo is not None
    assert read_events(tmp_path / "none") == []


def test_every_process_has_a_file_of_its_own(tmp_path: Path) -> None:
    record_event(tmp_path, "here")
    record_event(tmp_path, "here again")
    code = "import sys; from pathlib import Path; from rtdetr_slurm.runs.events import *; "
    code += "record_event(Path(sys.argv[1]), 'there')"
    for _ in range(2):
        subprocess.run([sys.executable, "-c", code, str(tmp_path)], check=True)
    assert len(list(tmp_path.glob("*.jsonl"))) == 3
    assert names(tmp_path) == ["here", "here again", "there", "there"]


def test_writers_are_merged_by_time(tmp_path: Path) -> None:
    (tmp_path / "a.jsonl").write_text(line("2026-01-01T00:00:01", "a1") + line("2026-01-03", "a2"))
    (tmp_path / "b.jsonl").write_text(line("2026-01-02", "b1") + line("2026-01-04", "b2"))
    assert names(tmp_path) == ["a1", "b1", "a2", "b2"]


def test_a_clock_that_is_set_back_does_not_reorder_a_writer(tmp_path: Path) -> None:
    (tmp_path / "a.jsonl").write_text(line("2026-01-05", "a1") + line("2026-01-01", "a2"))
    (tmp_path / "b.jsonl").write_text(line("2026-01-03", "b1"))
    assert names(tmp_path) == ["b1", "a1", "a2"]


def test_torn_and_foreign_lines_are_left_out(tmp_path: Path) -> None:
    (tmp_path / "a.jsonl").write_text('{"event": "submi\n[]\n{"event": 7}\n{"x": 1}\n')
    (tmp_path / "b.jsonl").write_text(line("2026-01-03", "b1"))
    assert names(tmp_path) == ["b1"]


def test_a_newer_version_says_so(tmp_path: Path) -> None:
    (tmp_path / "a.jsonl").write_text(line("2026-01-03", "a1").replace(": 1,", ": 2,", 1))
    with pytest.raises(RequestError, match=r"version 2 is newer than version 1.*use the newer"):
        read_events(tmp_path)
