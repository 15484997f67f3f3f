"""Reading logs and status lines while they are written."""

from __future__ import annotations

from pathlib import Path

from rtdetr_slurm.runs.logs import LogReader, tail
from rtdetr_slurm.runs.progress import progress_of


def test_tail_of_a_long_file(tmp_path: Path) -> None:
    path = tmp_path / "log"
    assert tail(path) == []
    path.write_text("".join(f"line {i} {'x' * 100}\n" for i in range(10_000)))
    lines = tail(path)
    assert [line.split()[1] for line in lines] == [str(i) for i in range(9800, 10_000)]
    path.write_text("of an earlier step\nof this one\n")
    assert tail(path, since=len("of an earlier step\n")) == ["of this one"]


def test_only_whole_new_lines_are_handed_out(tmp_path: Path) -> None:
    path = tmp_path / "log"
    reader = LogReader(path)
    assert reader.new_lines() == []
    with path.open("a") as stream:
        for text, lines in (("one\ntw", ["one"]), ("o\n", ["two"]), ("thr", []), ("", [])):
            stream.write(text)
            stream.flush()
            assert reader.new_lines() == lines
    assert reader.new_lines(end=True) == ["thr"]
    assert reader.new_lines(end=True) == []


def test_reading_from_the_end_leaves_out_what_was_there(tmp_path: Path) -> None:
    path = tmp_path / "log"
    path.write_text("old\n")
    reader = LogReader(path, from_end=True)
    with path.open("a") as stream:
        stream.write("new\n")
    assert reader.new_lines() == ["new"]


def test_progress_is_the_newest_of_everything() -> None:
    lines = [
        {"status": "STARTED", "message": "train started"},
        {"epoch": 0, "max_epoch": 9, "eta": "0:09", "kpi": {"train_loss": 3.0, "val_mAP": 0.1}},
        {
            "epoch": 1,
            "max_epoch": 9,
            "eta": "0:08:00.123456",
            "kpi": {"train_loss": 2.0, "val_mAP": None},
        },
    ]
    progress = progress_of(lines)
    assert (progress.epoch, progress.max_epoch, progress.eta) == (1, 9, "0:08:00")
    assert progress.shown_metrics == [("val_mAP", 0.1), ("train_loss", 2.0)]
    assert progress_of([]).epoch is None
