"""`rtdetr-slurm status`: all runs in a table, or one run in detail."""

from __future__ import annotations

import argparse
from collections.abc import Iterable
from pathlib import Path

from rtdetr_slurm.cli import terminal
from rtdetr_slurm.cli.page import run_page, run_table
from rtdetr_slurm.cli.runs import add_run_arguments, chosen_folder, run_root
from rtdetr_slurm.contract import ExitCode
from rtdetr_slurm.runs.run import run_ids
from rtdetr_slurm.submission.survey import survey_run, survey_runs


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
        for name, value in run_page(report):
            terminal.out(f"{name:<12} {value}".rstrip())
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
        terminal.out_text(run_table({f.name: found.reports.get(f) for f in folders}))
    else:
        terminal.note(f"no runs in {root}")
    _print_notes(f"unreadable: {reason}" for reason in found.unreadable.values())
    return ExitCode.OK


def _print_notes(notes: Iterable[str]) -> None:
    for note in notes:
        terminal.note(note)
