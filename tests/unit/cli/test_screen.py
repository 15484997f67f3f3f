"""What is drawn anew on a terminal, rendered to text."""

from __future__ import annotations

import io
import signal
import sys
from dataclasses import replace
from datetime import datetime, timezone
from pathlib import Path

import pytest
from rich.console import Console, Group, RenderableType

from rtdetr_slurm.cli import terminal
from rtdetr_slurm.cli.screen import fraction, run_bars, run_screen, runs_screen
from rtdetr_slurm.runs.live import Live, StartTimes
from rtdetr_slurm.runs.state import StageState
from rtdetr_slurm.runs.summary import RunReport, StageReport
from rtdetr_slurm.submission.watch import Picture

START = StartTimes(0, datetime.now(timezone.utc).isoformat(), {})
LIVE = Live("r:train", "cuda", "stepping", START, 2, 10, 25, 50, 3.2144, 41.26, 444.4, best=0.3)
TRAIN = StageReport("train", "train", StageState.RUNNING, job_id="7", live=LIVE)
EVALUATE = StageReport("evaluate", "evaluate", StageState.QUEUED, detail="Dependency", job_id="8")


def report(*stages: StageReport, run_id: str = "train-1") -> RunReport:
    return RunReport(run_id, f"/runs/{run_id}", None, "train", "now", "me", stages)


def drawn(content: RenderableType, width: int = 120) -> list[str]:
    options = {"width": width, "height": 20, "force_terminal": True, "color_system": None}
    console = Console(file=io.StringIO(), **options)
    console.print(Group(content))  # as rich.live draws it
    assert isinstance(console.file, io.StringIO)
    return [line.rstrip() for line in console.file.getvalue().splitlines()]


def test_every_stage_has_a_line_with_a_bar_where_it_runs() -> None:
    train, evaluate = drawn(run_bars(report(TRAIN, EVALUATE)))
    assert train.startswith("train    ━━━━━━")
    assert "epoch 3/10, ETA 0:07:24, stepping, step 25/50, loss 3.214, 41.3 images/s" in train
    assert evaluate == "evaluate queued                   Dependency"


def test_a_narrow_terminal_cuts_the_words() -> None:
    train, _ = drawn(run_bars(report(TRAIN, EVALUATE)), width=50)
    assert train.startswith("train    ━━━━━━")
    assert train.endswith("…")
    assert len(train) == 50


def test_what_a_rank_says_of_itself_moves_no_cursor() -> None:
    evil = replace(TRAIN, live=replace(LIVE, phase="\x1b[2J\n\r"))
    [line] = drawn(run_bars(report(evil)), width=200)
    assert "\\x1b[2J\\n\\r" in line


@pytest.mark.parametrize(
    ("live", "done"),
    [
        (LIVE, 0.25),
        (replace(LIVE, phase="validating", step=0, steps=3), 0.3),
        (replace(LIVE, epoch=None, epochs=None), 0.5),
        (replace(LIVE, epoch=None, steps=0), None),
        (replace(LIVE, epoch=99), 1.0),
        (replace(LIVE, epoch=-5), 0.0),
    ],
)
def test_a_bar_shows_the_share_that_is_done(live: Live, done: float | None) -> None:
    assert fraction(live) == (None if done is None else pytest.approx(done))


def test_the_screen_of_all_runs_begins_with_what_is_under_way() -> None:
    ended = replace(TRAIN, state=StageState.SUCCESS, live=None)
    runs = [report(ended, run_id=f"done-{n}") for n in range(50)]
    runs += [report(EVALUATE, run_id="waits"), report(TRAIN, run_id="works")]
    silence = "Slurm has not answered since 03:04:05: it is down"
    picture = Picture(
        {Path(r.run_dir): r for r in runs}, {Path("/runs/bad"): "damaged"}, ("a note",), silence
    )
    lines = drawn(runs_screen(picture, "03:05:00", 20), width=200)
    assert len(lines) <= 20
    assert [line.split()[0] for line in lines[1:4]] == ["works", "waits", "done-0"]
    assert any(line.startswith("works train ━━") for line in lines)
    assert lines[-3:] == ["03:05:00  1 queued, 1 running, 50 success", "a note", silence]


def test_the_screen_of_one_run_is_its_page_and_its_bars() -> None:
    whole = report(TRAIN, EVALUATE)
    lines = drawn(run_screen(Picture({Path(whole.run_dir): whole}, {}), "03:05:00"), width=160)
    assert "stages       train running → evaluate queued" in lines
    assert any(line.startswith("train    ━━━") for line in lines)


class Tty(io.StringIO):
    def isatty(self) -> bool:
        return True


@pytest.mark.parametrize("term", ["dumb", "unknown", None])
def test_a_terminal_that_cannot_move_its_cursor_gets_lines(
    term: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    if term is None:
        monkeypatch.delenv("TERM", raising=False)
    else:
        monkeypatch.setenv("TERM", term)
    monkeypatch.setattr(sys, "stderr", Tty())
    with terminal.area() as area:
        assert area is None
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setattr(sys, "stderr", io.StringIO())
    with terminal.area() as area:
        assert area is None
    monkeypatch.setenv("NO_COLOR", "1")
    out = Tty()
    monkeypatch.setattr(sys, "stderr", out)
    with terminal.area() as area:
        assert area is not None
        area.draw(run_bars(report(TRAIN)))
        terminal.note("a \x1b[2J line")
    text = out.getvalue()
    assert "a \\x1b[2J line" in text
    assert "\x1b[3" not in text, "colours"


def test_a_program_that_is_told_to_end_gives_the_screen_back(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("TERM", "xterm")
    out = Tty()
    monkeypatch.setattr(sys, "stdout", out)
    before = signal.getsignal(signal.SIGTERM)
    with pytest.raises(SystemExit, match="143"), terminal.area(whole=True):
        signal.raise_signal(signal.SIGTERM)
    assert out.getvalue().endswith("\x1b[?25h\x1b[?1049l")
    assert signal.getsignal(signal.SIGTERM) is before
