"""What `submit --wait`, `submit --follow` and `logs --follow` print while they wait."""

from __future__ import annotations

from rtdetr_slurm.cli import terminal
from rtdetr_slurm.cli.results import result_lines
from rtdetr_slurm.contract import ExitCode
from rtdetr_slurm.runs.report import RunReport, StageReport
from rtdetr_slurm.runs.run import Run
from rtdetr_slurm.runs.state import StageState
from rtdetr_slurm.submission.follow import Follower

INTERRUPTED_BY_USER = 130


class StateLines:
    """One line on stderr whenever what a report shows has changed.

    Args:
        progress: whether epoch and metrics belong to it; beside a log, which has them, they do not.
    """

    def __init__(self, *, progress: bool) -> None:
        self._progress = progress
        self._shown: dict[str, str] = {}

    def report(self, report: RunReport) -> None:
        for stage in report.stages:
            line = stage_line(stage, progress=self._progress)
            if self._shown.get(stage.name) != line:
                self._shown[stage.name] = line
                terminal.note(terminal.shown(line))

    def note(self, text: str) -> None:
        if self._shown.get("") != text:
            self._shown[""] = text
            terminal.note(text)


def watch(run: Run, *, show_log: bool, as_json: bool) -> int:
    """Follow a run to its end and print its results; the exit code is the run's."""
    lines = StateLines(progress=not show_log)
    on_line = terminal.note_log if show_log else None
    follower = Follower(run, on_line=on_line, on_report=lines.report, on_note=lines.note)
    try:
        report = follower.follow()
    except KeyboardInterrupt:
        terminal.note(f"\ndetached; the run goes on: rtdetr-slurm status {run.path}")
        return INTERRUPTED_BY_USER
    if as_json:
        terminal.document(report.to_json())
    else:
        print_end(report)
    return ExitCode.OK if report.state is StageState.SUCCESS else ExitCode.FAILED


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
