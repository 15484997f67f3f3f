"""What `submit --wait`, `submit --follow` and `logs --follow` print while they wait."""

from __future__ import annotations

import json
import sys
from pathlib import Path

from rtdetr_slurm.contract import ExitCode
from rtdetr_slurm.runs.results import results_of
from rtdetr_slurm.runs.run import Run
from rtdetr_slurm.runs.state import StageState
from rtdetr_slurm.slurm.follow import Follower
from rtdetr_slurm.slurm.survey import RunSurvey, StageSurvey, survey_json

INTERRUPTED_BY_USER = 130


class StateLines:
    """One line on stderr whenever what a survey shows has changed."""

    def __init__(self) -> None:
        self._shown: dict[str, str] = {}

    def state(self, survey: RunSurvey) -> None:
        for stage in survey.stages:
            line = stage_line(stage)
            if self._shown.get(stage.stage.name) != line:
                self._shown[stage.stage.name] = line
                print(line, file=sys.stderr, flush=True)

    def note(self, text: str) -> None:
        if self._shown.get("") != text:
            self._shown[""] = text
            print(text, file=sys.stderr, flush=True)


def watch(run: Run, *, show_log: bool, as_json: bool) -> int:
    """Follow a run to its end and print its results; the exit code is the run's."""
    lines = StateLines()
    on_line = _log_line if show_log else None
    follower = Follower(run, on_line=on_line, on_state=lines.state, on_note=lines.note)
    try:
        survey = follower.follow()
    except KeyboardInterrupt:
        print(f"\ndetached; the run goes on: rtdetr-slurm status {run.path}", file=sys.stderr)
        return INTERRUPTED_BY_USER
    if as_json:
        print(json.dumps(survey_json(survey) | {"results": results_json(survey)}, indent=2))
    else:
        print_end(survey)
    return ExitCode.OK if survey.state is StageState.SUCCESS else ExitCode.FAILED


def stage_line(survey: StageSurvey) -> str:
    """State, progress and reason of a stage on one line."""
    report, progress = survey.report, survey.progress
    parts = [f"{survey.stage.name}: {report.state.value}"]
    if report.job_id:
        parts.append(f"job {report.job_id}")
    if report.restarts:
        parts.append(f"restart {report.restarts}")
    if report.detail:
        parts.append(report.detail)
    if progress.epoch is not None and not report.state.ended:
        parts.append(f"epoch {progress.epoch + 1}/{(progress.max_epoch or 0) + 1}")
        parts += [f"ETA {progress.eta}"] if progress.eta else []
        parts += [f"{name} {value:.4f}" for name, value in progress.shown_metrics]
    return ", ".join(parts)


def print_end(survey: RunSurvey) -> None:
    """Results to stdout; what went wrong, and what to do about it, to stderr."""
    for stage in survey.stages:
        failure = stage.report.failure
        if failure is not None:
            print(f"{stage.stage.name} failed ({failure.failure_class.value}):", file=sys.stderr)
            print(f"  {failure.evidence}", file=sys.stderr)
            print(f"  what to do: {failure.advice}", file=sys.stderr)
            if stage.report.job_id:
                print(f"  log: {survey.run.log_path(stage.report.job_id)}", file=sys.stderr)
        for name, value in stage.progress.shown_metrics:
            print(f"{name:<12} {value:.4f}")
        for name, text in result_lines(stage):
            print(f"{name:<12} {text}")


def result_lines(survey: StageSurvey) -> list[tuple[str, str]]:
    """The files of a stage that exist, with what they are."""
    results = results_of(survey.stage)
    lines = []
    if results.best is not None:
        lines.append(("best", f"{results.best} (val_mAP {results.best_metric:.4f})"))
    if results.last is not None:
        lines.append(("last", str(results.last)))
    if results.picture is not None:
        lines.append(("picture", str(results.picture)))
    return lines


def results_json(survey: RunSurvey) -> dict[str, dict[str, str | float | None]]:
    """The same as `result_lines`, for --json, by stage."""
    document: dict[str, dict[str, str | float | None]] = {}
    for stage in survey.stages:
        found = results_of(stage.stage)
        document[stage.stage.name] = {
            "best_checkpoint": _text(found.best),
            "best_val_mAP": found.best_metric,
            "last_checkpoint": _text(found.last),
            "picture": _text(found.picture),
        }
    return document


def _text(path: Path | None) -> str | None:
    return None if path is None else str(path)


def _log_line(line: str) -> None:
    print(line, file=sys.stderr, flush=True)
