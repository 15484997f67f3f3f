"""`rtdetr-slurm status`: all runs in a table, or one run in detail; once, or kept up to date."""

from __future__ import annotations

import argparse
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from rtdetr_slurm.cli import terminal
from rtdetr_slurm.cli.page import run_page, run_table
from rtdetr_slurm.cli.runs import add_run_arguments, chosen_folder, run_root
from rtdetr_slurm.contract import ExitCode
from rtdetr_slurm.runs.run import run_ids
from rtdetr_slurm.runs.summary import RunReport
from rtdetr_slurm.submission.survey import survey_run, survey_runs


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add_run_arguments(parser, optional=True)
    how = parser.add_mutually_exclusive_group()
    how.add_argument("--watch", action="store_true", help="keep it up to date until the end")
    how.add_argument("--json", action="store_true", help="print one JSON document")


def run(args: argparse.Namespace) -> int:
    folder = None if args.run is None else chosen_folder(args)
    if args.watch:
        from rtdetr_slurm.cli.watching import watch_status

        if folder is not None:
            return watch_status(lambda: [folder], _print_page, one=True)
        root = run_root(args.site)
        if _folders(root):
            return watch_status(lambda: _folders(root), _print_table, one=False)
    if folder is None:
        return _all_runs(run_root(args.site), as_json=args.json)
    report, notes = survey_run(folder)
    _print_notes(notes)
    if args.json:
        terminal.document(report.to_json())
    else:
        _print_page({folder: report}, {})
    return ExitCode.OK


def _folders(root: Path) -> Sequence[Path]:
    return [root / run_id for run_id in run_ids(root)]


def _all_runs(root: Path, *, as_json: bool) -> int:
    folders = _folders(root)
    found = survey_runs(folders)
    _print_notes(found.told)
    if as_json:
        runs = [found.reports[folder].to_json() for folder in folders if folder in found.reports]
        unreadable = [
            {"run_id": folder.name, "run_dir": str(folder), "reason": reason}
            for folder, reason in found.unreadable.items()
        ]
        terminal.document({"run_root": str(root), "runs": runs, "unreadable": unreadable})
        return ExitCode.OK
    if folders:
        _print_table({folder: found.reports.get(folder) for folder in folders}, found.unreadable)
    else:
        terminal.note(f"no runs in {root}")
    return ExitCode.OK


def _print_page(reports: Mapping[Path, RunReport], _unreadable: Mapping[Path, str]) -> None:
    for report in reports.values():
        for line in run_page(report):
            terminal.out(line)


def _print_table(reports: Mapping[Path, RunReport | None], unreadable: Mapping[Path, str]) -> None:
    """The table, and below it why the other runs cannot be read."""
    runs = {**reports, **dict.fromkeys(unreadable)}
    terminal.out_text(run_table({folder.name: one for folder, one in runs.items()}))
    _print_notes(f"unreadable: {reason}" for reason in unreadable.values())


def _print_notes(notes: Iterable[str]) -> None:
    for note in notes:
        terminal.note(note)
