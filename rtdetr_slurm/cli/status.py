"""`rtdetr-slurm status`: all runs in a table, or one run in detail."""

from __future__ import annotations

import argparse
from collections.abc import Iterable, Mapping
from pathlib import Path

from rtdetr_slurm.cli import terminal
from rtdetr_slurm.cli.runs import add_run_arguments, chosen_folder, run_root
from rtdetr_slurm.cli.watching import result_lines
from rtdetr_slurm.contract import ExitCode
from rtdetr_slurm.runs.report import RunReport, StageReport
from rtdetr_slurm.runs.run import run_ids
from rtdetr_slurm.runs.state import StageState
from rtdetr_slurm.submission.survey import survey_run, survey_runs

_COLOURS = {
    StageState.SUCCESS: "green",
    StageState.RUNNING: "cyan",
    StageState.FAILED: "red",
    StageState.CANCELLED: "yellow",
    StageState.SKIPPED: "yellow",
    StageState.UNKNOWN: "magenta",
    StageState.QUEUED: "blue",
}

_HEADINGS = ("RUN", "NAME", "STATE", "STAGE", "JOB", "EPOCH", "ETA", "METRIC")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add_run_arguments(parser, optional=True)
    parser.add_argument("--json", action="store_true", help="print one JSON document")


def run(args: argparse.Namespace) -> int:
    if args.run is None:
        return _all_runs(run_root(args.site), as_json=args.json)
    report, notes = survey_run(chosen_folder(args))
    _print_notes(notes)
    if args.json:
        terminal.document(report.to_json())
    else:
        _print_page(report)
    return ExitCode.OK


def _all_runs(root: Path, *, as_json: bool) -> int:
    folders = [root / run_id for run_id in run_ids(root)]
    found = survey_runs(folders)
    _print_notes(found.notes)
    if as_json:
        runs = [found.reports[folder].to_json() for folder in folders if folder in found.reports]
        unreadable = [
            {"run_id": folder.name, "run_dir": str(folder), "reason": reason}
            for folder, reason in found.unreadable.items()
        ]
        terminal.document({"run_root": str(root), "runs": runs, "unreadable": unreadable})
        return ExitCode.OK
    if folders:
        _print_table({folder.name: found.reports.get(folder) for folder in folders})
    else:
        terminal.note(f"no runs in {root}")
    _print_notes(f"unreadable: {reason}" for reason in found.unreadable.values())
    return ExitCode.OK


def _print_notes(notes: Iterable[str]) -> None:
    for note in notes:
        terminal.note(note)


def _print_table(runs: Mapping[str, RunReport | None]) -> None:
    """A row for each run; None is one that cannot be read."""
    from rtdetr_slurm.cli.table import table

    rows, styles = [], []
    for run_id, report in runs.items():
        rows.append([run_id, *(["", "unreadable"] if report is None else _cells(report))])
        styles.append("red" if report is None else _COLOURS[report.state])
    terminal.out_text(table(_HEADINGS, rows, styles, coloured=_HEADINGS.index("STATE")))


def _cells(report: RunReport) -> list[str]:
    stage = _stage_of_interest(report)
    return [
        report.name or "",
        report.state.value,
        stage.name,
        stage.job_id or "",
        stage.progress.shown_epoch,
        (stage.progress.eta or "") if stage.state is StageState.RUNNING else "",
        _metric(stage),
    ]


def _stage_of_interest(report: RunReport) -> StageReport:
    """The first stage that makes the run's state what it is; of a run that went well, the last."""
    if report.state is StageState.SUCCESS:
        return report.stages[-1]
    return next(stage for stage in report.stages if stage.state is report.state)


def _metric(stage: StageReport) -> str:
    shown = stage.progress.shown_metrics
    return f"{shown[0][0]} {shown[0][1]:.4f}" if shown else ""


def _print_page(report: RunReport) -> None:
    facts = [("run", report.run_id), ("state", report.state.value)]
    facts += [("name", report.name)] if report.name else []
    facts += [
        ("folder", report.run_dir),
        ("submitted", f"{report.created} by {report.user}"),
    ]
    for stage in report.stages:
        facts += [("", ""), *_stage_facts(stage)]
    for name, value in facts:
        terminal.out(f"{name:<12} {value}".rstrip())


def _stage_facts(stage: StageReport) -> list[tuple[str, str]]:
    job, progress = stage.job, stage.progress
    detail = f" ({stage.detail})" if stage.detail else ""
    facts = [("stage", stage.name), ("state", stage.state.value + detail)]
    if stage.job_id:
        slurm = f", {job.state} says {job.source}" if job and not job.gone else ""
        facts.append(("job", stage.job_id + slurm))
    if job and job.nodes:
        facts.append(("nodes", job.nodes))
    if job and job.expected_start and stage.state is StageState.QUEUED:
        facts.append(("start", f"expected {job.expected_start}"))
    if stage.restarts:
        facts.append(("restarts", str(stage.restarts)))
    if progress.epoch is not None:
        eta = f", ETA {progress.eta}" if progress.eta and not stage.state.ended else ""
        facts.append(("epoch", stage.progress.shown_epoch + eta))
    facts += [(name, f"{value:.4f}") for name, value in progress.shown_metrics]
    if stage.failure is not None:
        facts.append(("failure", stage.failure.failure_class.value))
        facts.append(("evidence", stage.failure.evidence))
        facts.append(("what to do", stage.failure.advice))
    facts += result_lines(stage)
    facts.append(("results", stage.results_dir))
    if stage.log:
        facts.append(("log", stage.log))
    return facts
