"""`rtdetr-slurm status`: all runs in a table, or one run in detail."""

from __future__ import annotations

import argparse
import json
import os
import sys
from pathlib import Path

from rtdetr_slurm.cli.watching import result_lines, results_json
from rtdetr_slurm.contract import ExitCode
from rtdetr_slurm.errors import RequestError
from rtdetr_slurm.runs.run import Run, find_run, open_run, run_ids
from rtdetr_slurm.runs.state import StageState
from rtdetr_slurm.site.discover import find_site
from rtdetr_slurm.slurm.survey import RunSurvey, StageSurvey, survey, survey_json

_COLOURS = {
    StageState.SUCCESS: "green",
    StageState.RUNNING: "cyan",
    StageState.FAILED: "red",
    StageState.CANCELLED: "yellow",
    StageState.UNKNOWN: "magenta",
    StageState.QUEUED: "blue",
}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("run", nargs="?", metavar="RUN", help="a run id, its beginning, or a path")
    parser.add_argument("--site", metavar="FILE", help="site profile; tells where the runs are")
    parser.add_argument("--json", action="store_true", help="print one JSON document")


def run(args: argparse.Namespace) -> int:
    if args.run is None:
        return _all_runs(run_root(args.site), as_json=args.json)
    surveys, notes = survey([chosen_run(args)])
    _print_notes(notes)
    if args.json:
        document = survey_json(surveys[0]) | {"results": results_json(surveys[0])}
        print(json.dumps(document, indent=2))
    else:
        _print_page(surveys[0])
    return ExitCode.OK


def chosen_run(args: argparse.Namespace) -> Run:
    """The run that RUN and --site name."""
    return find_run(args.run, lambda: run_root(args.site))


def run_root(site: str | None) -> Path:
    """Where this site's runs are."""
    return Path(find_site(site, os.environ).site.run_root).absolute()


def _all_runs(root: Path, *, as_json: bool) -> int:
    runs = []
    for run_id in run_ids(root):
        try:
            runs.append(open_run(root / run_id))
        except RequestError as error:  # one damaged record must not hide the others
            print(error, file=sys.stderr)
    surveys, notes = survey(runs)
    _print_notes(notes)
    if as_json:
        print(
            json.dumps({"run_root": str(root), "runs": [survey_json(s) for s in surveys]}, indent=2)
        )
    elif not surveys:
        print(f"no runs in {root}", file=sys.stderr)
    else:
        _print_table(surveys)
    return ExitCode.OK


def _print_notes(notes: list[str]) -> None:
    for note in notes:
        print(note, file=sys.stderr)


def _print_table(surveys: list[RunSurvey]) -> None:
    from rich.console import Console
    from rich.table import Table

    table = Table(box=None, pad_edge=False, header_style="bold")
    for heading in ("RUN", "NAME", "STATE", "JOB", "EPOCH", "ETA", "METRIC"):
        table.add_column(heading, no_wrap=heading in ("RUN", "STATE"))
    for found in surveys:
        stage = found.stages[-1]
        table.add_row(
            found.run.id,
            found.run.manifest["name"] or "",
            f"[{_COLOURS[found.state]}]{found.state.value}[/]",
            stage.report.job_id or "",
            _epoch(stage),
            (stage.progress.eta or "") if found.state is StageState.RUNNING else "",
            _metric(stage),
        )
    width = None if sys.stdout.isatty() else 200
    Console(width=width, highlight=False).print(table)


def _epoch(stage: StageSurvey) -> str:
    progress = stage.progress
    if progress.epoch is None:
        return ""
    return f"{progress.epoch + 1}/{(progress.max_epoch or 0) + 1}"


def _metric(stage: StageSurvey) -> str:
    shown = stage.progress.shown_metrics
    return f"{shown[0][0]} {shown[0][1]:.4f}" if shown else ""


def _print_page(found: RunSurvey) -> None:
    run, manifest = found.run, found.run.manifest
    facts = [("run", run.id), ("state", found.state.value)]
    facts += [("name", manifest["name"])] if manifest["name"] else []
    facts += [
        ("folder", str(run.path)),
        ("submitted", f"{manifest['created']} by {manifest['user']}"),
    ]
    for stage in found.stages:
        facts += [("", ""), *_stage_facts(run, stage)]
    for name, value in facts:
        print(f"{name:<12} {value}".rstrip())


def _stage_facts(run: Run, found: StageSurvey) -> list[tuple[str, str]]:
    report, job, progress = found.report, found.job, found.progress
    detail = f" ({report.detail})" if report.detail else ""
    facts = [("stage", found.stage.name), ("state", report.state.value + detail)]
    if report.job_id:
        slurm = f", {job.state} says {job.source}" if job else ""
        facts.append(("job", report.job_id + slurm))
    if job and job.nodes:
        facts.append(("nodes", job.nodes))
    if job and job.expected_start and report.state is StageState.QUEUED:
        facts.append(("start", f"expected {job.expected_start}"))
    if report.restarts:
        facts.append(("restarts", str(report.restarts)))
    if progress.epoch is not None:
        eta = f", ETA {progress.eta}" if progress.eta and not report.state.ended else ""
        facts.append(("epoch", _epoch(found) + eta))
    facts += [(name, f"{value:.4f}") for name, value in progress.shown_metrics]
    if report.failure is not None:
        facts.append(("failure", report.failure.failure_class.value))
        facts.append(("evidence", report.failure.evidence))
        facts.append(("what to do", report.failure.advice))
    facts += result_lines(found)
    facts.append(("results", found.stage.results_dir))
    if report.job_id:
        facts.append(("log", str(run.log_path(report.job_id))))
    return facts
