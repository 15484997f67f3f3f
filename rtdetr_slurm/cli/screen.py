"""What is drawn anew on a terminal: bars, and whole screens. Pure: reports → what rich draws."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable

from rich.cells import cell_len
from rich.console import Group, RenderableType
from rich.text import Text

from rtdetr_slurm.cli.page import (
    COLOURS,
    run_page,
    run_table,
    shown_epoch,
    shown_eta,
    shown_live,
)
from rtdetr_slurm.cli.terminal import shown, shown_lines
from rtdetr_slurm.runs.live import Live
from rtdetr_slurm.runs.state import StageState
from rtdetr_slurm.runs.summary import RunReport, StageReport
from rtdetr_slurm.submission.watch import Picture

_WIDTH = 24


def bars(stages: Iterable[tuple[str, StageReport]]) -> Text:
    """A line for each stage: a name, a bar where there is progress to show, and words, which a
    narrow terminal cuts off."""
    rows = [(shown(name), stage) for name, stage in stages]
    width = max((cell_len(name) for name, _ in rows), default=0)
    text = Text(no_wrap=True, overflow="ellipsis")
    for number, (name, stage) in enumerate(rows):
        text.append("\n" if number else "")
        text.append(name + " " * (width - cell_len(name) + 1), style="bold")
        text.append_text(_bar(stage)).append(f" {shown(_words(stage))}")
    return text


def run_bars(report: RunReport) -> Text:
    """A line for each stage of a run."""
    return bars((stage.name, stage) for stage in report.stages)


def run_screen(picture: Picture, now: str) -> Group:
    """The bars of the only run, and its page, of which a low terminal shows the beginning.

    Args:
        now: the time, for the last line.
    """
    parts: list[RenderableType] = []
    for report in picture.reports.values():
        page = Text(shown_lines("\n".join(run_page(report))), no_wrap=True)
        parts += [run_bars(report), _last_lines(picture, now), Text(""), page]
    return Group(*parts)


def runs_screen(picture: Picture, now: str, height: int) -> Group:
    """The table of as many runs as there is room for, what is under way first, and the bars of what
    runs.

    Args:
        height: lines of the terminal.
    """
    running = [
        (f"{report.run_id} {stage.name}", stage)
        for report in picture.reports.values()
        for stage in report.stages
        if stage.state is StageState.RUNNING
    ][: max(height // 3, 1)]
    last = _last_lines(picture, now)
    room = max(height - 1 - len(running) - len(last.plain.splitlines()), 1)
    runs = {f.name: one for f, one in picture.reports.items()}
    # Otherwise the newest first, as they come.
    order = sorted(runs, key=lambda name: _URGENCY.get(runs[name].state, len(_URGENCY)))
    rows: dict[str, RunReport | None] = {name: runs[name] for name in order[:room]}
    rows |= {f.name: None for f in list(picture.unreadable)[: room - len(rows)]}
    table = run_table(rows)
    table.rstrip()
    table.no_wrap = True
    return Group(*[table, *([bars(running)] if running else []), last])


_URGENCY = {
    state: number
    for number, state in enumerate((StageState.RUNNING, StageState.UNKNOWN, StageState.QUEUED))
}


def _last_lines(picture: Picture, now: str) -> Text:
    states = Counter(report.state for report in picture.reports.values())
    counted = ", ".join(f"{states[state]} {state.value}" for state in StageState if states[state])
    lines = [f"{now}  {counted or 'no runs'}", *picture.notes]
    lines += [picture.silence] if picture.silence else []
    return Text(shown_lines("\n".join(["", *lines])), style="dim", no_wrap=True)


def _bar(stage: StageReport) -> Text:
    done = None if stage.live is None else fraction(stage.live)
    if stage.state is not StageState.RUNNING or done is None:
        return Text(f"{stage.state.value:<{_WIDTH}}", style=COLOURS[stage.state])
    full = round(done * _WIDTH)
    return Text("━" * full, style=COLOURS[stage.state]).append("·" * (_WIDTH - full), style="dim")


def _words(stage: StageReport) -> str:
    live = stage.live
    if stage.state is not StageState.RUNNING or live is None:
        start = stage.job.expected_start if stage.job is not None else None
        waits = stage.state is StageState.QUEUED and start
        return stage.detail + (f", expected to start {start}" if waits else "")
    epoch, eta = shown_epoch(stage), shown_eta(stage)
    parts = [f"epoch {epoch}" if epoch else "", f"ETA {eta}" if eta else "", shown_live(live)]
    return ", ".join(filter(None, parts))


def fraction(live: Live) -> float | None:
    """How much is done, between 0 and 1: of a training its epochs, else the steps of the phase;
    None where nobody can say."""
    within = live.step / live.steps if live.steps > 0 else None
    if live.epoch is None or not live.epochs:
        return None if within is None else min(max(within, 0.0), 1.0)
    # What follows an epoch's steps (saving, validating) is no part of its bar.
    of_epoch = (within or 0.0) if live.phase == "stepping" else 1.0
    return min(max((live.epoch + of_epoch) / live.epochs, 0.0), 1.0)
