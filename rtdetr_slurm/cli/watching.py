"""What `submit --wait`, `submit --follow` and `logs --follow` print while they wait."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from datetime import datetime
from pathlib import Path

from rtdetr_slurm.cli import terminal
from rtdetr_slurm.cli.results import result_lines
from rtdetr_slurm.contract import ExitCode
from rtdetr_slurm.errors import RequestError
from rtdetr_slurm.runs.run import Run
from rtdetr_slurm.runs.state import StageState
from rtdetr_slurm.runs.summary import RunReport, StageReport
from rtdetr_slurm.submission.follow import Follower
from rtdetr_slurm.submission.watch import Picture, Watcher

INTERRUPTED_BY_USER = 130
_EVERY_S, _SOON_S = 1.0, 0.05
"""Pauses between two looks, and before the first answer."""


class StateLines:
    """One line whenever what a report shows has changed.

    Args:
        progress: whether epoch and metrics belong to it; beside a log or a bar, which have them,
            they do not.
        say: where the lines go.
        named: whether each begins with the run's id.
    """

    def __init__(
        self,
        *,
        progress: bool,
        say: Callable[[str], None] = terminal.note,
        named: bool = False,
    ) -> None:
        self._progress, self._say, self._named = progress, say, named
        self._shown: dict[tuple[str, str], str] = {}
        self._silent = False

    def report(self, report: RunReport) -> None:
        for stage in report.stages:
            line = stage_line(stage, progress=self._progress)
            if self._shown.get((report.run_id, stage.name)) != line:
                self._shown[report.run_id, stage.name] = line
                run = f"{report.run_id} " if self._named else ""
                self._say(terminal.shown(f"{run}{line}"))

    def unreadable(self, run_id: str, reason: str) -> None:
        """Say why a run cannot be read, once for each reason."""
        if self._shown.get((run_id, "")) != reason:
            self._shown[run_id, ""] = reason
            terminal.note(f"unreadable: {reason}")

    def silence(self, text: str | None) -> None:
        """Say once that Slurm does not answer, and once that it does again."""
        if text is not None and not self._silent:
            terminal.note(f"{text}; states are as it last told them, and it is asked on")
        elif text is None and self._silent:
            terminal.note("Slurm answers again")
        self._silent = text is not None


def watch(run: Run, *, show_log: bool, as_json: bool) -> int:
    """Follow a run to its end and print its results; the exit code is the run's."""
    try:
        report = follow(run, terminal.note_log if show_log else None)
    except KeyboardInterrupt:
        terminal.note(f"\ndetached; the run goes on: rtdetr-slurm status {run.path}")
        return INTERRUPTED_BY_USER
    if as_json:
        terminal.document(report.to_json())
    else:
        print_end(report)
    return ExitCode.OK if report.state is StageState.SUCCESS else ExitCode.FAILED


def follow(run: Run, on_line: Callable[[str], None] | None) -> RunReport:
    """Follow a run to its end, on a terminal with a bar for each stage below the lines.

    Args:
        on_line: takes the lines of its logs; None leaves them alone.
    """
    with terminal.area() as area:
        lines = StateLines(progress=on_line is None and area is None)

        def on_report(report: RunReport) -> None:
            lines.report(report)
            if area is not None:
                from rtdetr_slurm.cli.screen import run_bars

                area.draw(run_bars(report))

        return Follower(
            run,
            on_line=on_line,
            on_report=on_report,
            on_note=terminal.note,
            on_silence=lines.silence,
        ).follow()


def watch_status(
    folders: Callable[[], Sequence[Path]],
    last: Callable[[Mapping[Path, RunReport], Mapping[Path, str]], None],
    *,
    one: bool,
) -> int:
    """Keep the state of runs on the screen until none of them is under way any more; where there is
    no screen, print a line for each change.

    Args:
        folders: names them, anew each time.
        last: prints what stays when the screen is given back: reports, and why others cannot be
            read.
        one: show the page of the only run, not the table.

    Raises:
        RequestError: the only run cannot be read.
    """
    watcher = Watcher(folders)
    picture, drawn = None, None
    try:
        with terminal.area(whole=True) as area:
            lines = StateLines(progress=True, say=terminal.out, named=True)
            while picture is None or not picture.over:
                picture, asked = watcher.look()
                if picture is not None and one and picture.unreadable:
                    raise RequestError(*picture.unreadable.values())
                if picture is not None and area is not None:
                    _draw(area, picture, one=one)
                    drawn = picture
                elif picture is not None and asked:
                    _tell(picture, lines)
                time.sleep(_EVERY_S if picture is not None else _SOON_S)
    finally:
        if drawn is not None:
            last(drawn.reports, drawn.unreadable)
    return ExitCode.OK


def _draw(area: terminal.Area, picture: Picture, *, one: bool) -> None:
    from rtdetr_slurm.cli.screen import run_screen, runs_screen

    now = f"{datetime.now():%H:%M:%S}"
    area.draw(run_screen(picture, now) if one else runs_screen(picture, now, area.height))


def _tell(picture: Picture, lines: StateLines) -> None:
    for note in picture.notes:
        terminal.note(note)
    lines.silence(picture.silence)
    for report in picture.reports.values():
        lines.report(report)
    for folder, reason in picture.unreadable.items():
        lines.unreadable(folder.name, reason)


def stage_line(stage: StageReport, *, progress: bool = True) -> str:
    """State, progress and reason of a stage on one line."""
    parts = [f"{stage.name}: {stage.state.value}"]
    if stage.job_id:
        parts.append(f"job {stage.job_id}")
    if stage.restarts:
        parts.append(f"restart {stage.restarts}")
    if stage.detail:
        parts.append(stage.detail)
    known = stage.progress
    if progress and known.epoch is not None and not stage.state.ended:
        parts.append(f"epoch {known.shown_epoch}")
        parts += [f"ETA {known.eta}"] if known.eta else []
        parts += [f"{name} {value:.4f}" for name, value in known.shown_metrics]
    return ", ".join(parts)


def print_end(report: RunReport) -> None:
    """Results to stdout; what went wrong, and what to do about it, to stderr."""
    for stage in report.stages:
        if len(report.stages) > 1:
            terminal.out(f"{stage.name}: {stage.state.value}")
        failure = stage.failure
        if failure is not None:
            terminal.note(f"{stage.name} failed ({failure.failure_class.value}):")
            terminal.note(f"  {terminal.shown(failure.evidence)}")
            terminal.note(f"  what to do: {failure.advice}")
            if stage.log:
                terminal.note(f"  log: {stage.log}")
        for name, value in stage.progress.shown_metrics:
            terminal.out(f"{name:<12} {value:.4f}")
        for name, text in result_lines(stage):
            terminal.out(f"{name:<12} {text}")
