"""What happened to a run, told by many writers."""

from __future__ import annotations

import errno
import json
import os
import subprocess
import sys
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest

from rtdetr_slurm.errors import RequestError
from rtdetr_slurm.records import BadRecord
from rtdetr_slurm.runs import events
from rtdetr_slurm.runs.events import read_events, record_event, record_once


def line(timestamp: str, event: str, **data: Any) -> str:
    timestamp += "+00:00" if "T" in timestamp else "T00:00:00+00:00"
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


def test_what_a_crash_leaves_is_left_out(tmp_path: Path) -> None:
    (tmp_path / "a.jsonl").write_text('{"event": "submi\n\0\0\0\0\n')
    (tmp_path / "b.jsonl").write_text(line("2026-01-03", "b1"))
    assert names(tmp_path) == ["b1"]


def test_what_is_recorded_once_is_so_where_there_are_no_hard_links(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def link(*_: object) -> None:
        raise PermissionError(errno.EPERM, os.strerror(errno.EPERM))

    monkeypatch.setattr(os, "link", link)
    assert record_once(tmp_path, "end", "unclear", stage="train")
    assert not record_once(tmp_path, "end", "unclear", stage="export")
    assert [event["stage"] for event in read_events(tmp_path)] == ["train"]
    assert [path.name for path in tmp_path.iterdir()] == ["end.jsonl"]


def test_what_a_killed_writer_has_torn_is_recorded_by_the_next(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As can be where there are no hard links: the file is there, and says nothing."""
    monkeypatch.setattr(events, "_LOOK_EVERY_S", 0.001)
    (tmp_path / "end-train-0.jsonl").write_text('{"event": "fini')
    assert record_once(tmp_path, "end-train-0", "finished", state="success")
    assert not record_once(tmp_path, "end-train-0", "finished", state="success")
    assert names(tmp_path) == ["finished"]


def test_a_line_separator_in_a_reason_ends_no_line(tmp_path: Path) -> None:
    record_event(tmp_path, "refused", reason="a\u2028b\x85c\udc80")
    assert [event["reason"] for event in read_events(tmp_path)] == ["a\u2028b\x85c\udc80"]


GOOD = {
    "schema_version": 1,
    "timestamp": "2026-01-03T00:00:00+00:00",
    "event": "finished",
    "stage": "train",
    "job_id": "7_1",
    "state": "failed",
    "failure_class": "infra",
    "checkpoints": {"last": {"file": "model_epoch_001.pth", "epoch": 1, "metric": 1, "sha256": ""}},
}


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"event": None}, "event: found None; expected text"),
        ({"event": ...}, "event: this field is missing"),
        ({"timestamp": ...}, "timestamp: this field is missing"),
        ({"timestamp": "yesterday"}, "timestamp: found .* expected a time"),
        ({"timestamp": "2026-01-03T00:00:00"}, "timestamp: .* with its time zone"),
        ({"timestamp": "0001-01-01T00:00:00+00:00"}, "timestamp"),
        ({"job_id": "--user=x"}, "job_id: '--user=x' is no job id"),
        *[({"job_id": no}, "job_id: ") for no in ("7\n", "7;8", "", None, "../7", 7.5)],
        ({"cluster": "-M x"}, "cluster: '-M x' is no cluster's name"),
        ({"job_id": 7}, "job_id: found 7; expected text"),
        ({"job_id": "٣"}, "job_id"),
        ({"event": "submitted", "job_id": ...}, "job_id: this field is missing"),
        ({"task": "1"}, "task: found '1'; expected a whole number"),
        ({"restart": True}, "restart: found True; expected a whole number"),
        ({"restart": 10**400}, "restart"),
        ({"state": "running"}, "state: found 'running'; expected one of success, failed, cancel"),
        ({"state": ...}, "state: this field is missing"),
        ({"failure_class": ...}, "failure_class: this field is missing"),
        ({"failure_class": "x"}, "failure_class: found 'x'; expected one of infra, preempted"),
        ({"checkpoints": []}, "checkpoints: found a list; expected an object"),
        ({"checkpoints": {"last": {}}}, r"checkpoints\.last\.epoch: this field is missing"),
        (
            {"checkpoints": {"best": {**GOOD["checkpoints"]["last"], "file": "../x.pth"}}},
            "checkpoints: '../x.pth' is no checkpoint's name",
        ),
    ],
)
def test_a_line_that_is_no_event_is_told_by_its_field(
    tmp_path: Path, change: dict[str, Any], said: str
) -> None:
    text = json.dumps({k: v for k, v in (GOOD | change).items() if v is not ...})
    (tmp_path / "a.jsonl").write_text(json.dumps(GOOD) + "\n" + text + "\n")
    with pytest.raises(BadRecord, match=rf"a\.jsonl:2: {said}"):
        read_events(tmp_path)


@pytest.mark.parametrize("text", ["[]", "7", "null", "nonsense", "\x1b[2J", "[" * 100_000])
def test_a_line_that_is_no_object_is_told(tmp_path: Path, text: str) -> None:
    (tmp_path / "a.jsonl").write_text(text + "\n")
    with pytest.raises(BadRecord, match=r"a\.jsonl:1: "):
        read_events(tmp_path)


def test_a_newer_version_says_so(tmp_path: Path) -> None:
    (tmp_path / "a.jsonl").write_text(line("2026-01-03", "a1").replace(": 1,", ": 2,", 1))
    with pytest.raises(RequestError, match=r"version 2 is newer than version 1.*use the newer"):
        read_events(tmp_path)
