"""`rtdetr-slurm automl status`: the leaderboard of a search, what it trains, and how long yet."""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from rtdetr_slurm.cli import terminal
from rtdetr_slurm.cli.runs import add_run_arguments, chosen_run
from rtdetr_slurm.contract import ExitCode
from rtdetr_slurm.runs.run import Run
from rtdetr_slurm.runs.trials import searching_stage
from rtdetr_slurm.submission.survey import survey_run

if TYPE_CHECKING:
    from rtdetr_slurm.automl.status import SearchStatus
    from rtdetr_slurm.submission.watch import Picture

_EVERY_S = 2.0
"""Pause between two looks at the trials; Slurm is asked much more seldom."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add_run_arguments(parser)
    how = parser.add_mutually_exclusive_group()
    how.add_argument("--watch", action="store_true", help="keep it up to date until the end")
    how.add_argument("--json", action="store_true", help="print one JSON document")


def run(args: argparse.Namespace) -> int:
    from rtdetr_slurm.automl.status import status_of
    from rtdetr_slurm.automl.study import open_study
    from rtdetr_slurm.cli.automl.page import search_page

    found = chosen_run(args)
    study = open_study(searching_stage(found)[1])

    def look() -> SearchStatus:
        return status_of(found, study)

    if args.watch:
        return _watch(found, look)
    report, notes = survey_run(found.path)
    for note in notes:
        terminal.note(note)
    status = look()
    if args.json:
        terminal.document(status.to_json())
    else:
        terminal.out_text(search_page(status, report))
    return ExitCode.OK


def _watch(found: Run, look: Callable[[], SearchStatus]) -> int:
    """Keep it on the screen until no job of the run is under way; where there is no screen, print a
    line for each change of a trial."""
    from rtdetr_slurm.cli.automl.page import search_page, trial_lines
    from rtdetr_slurm.submission.watch import Watcher

    folders: list[Path] = [found.path]
    watcher = Watcher(lambda: folders)
    picture: Picture | None = None
    shown: dict[int, str] = {}
    last = None
    try:
        with terminal.area(whole=True) as area:
            while picture is None or not picture.over:
                picture, _ = watcher.look()
                if picture is None:
                    time.sleep(0.05)
                    continue
                for reason in picture.unreadable.values():
                    terminal.note(f"unreadable: {reason}")
                    return ExitCode.BAD_REQUEST
                last = search_page(look(), picture.reports[found.path])
                if area is not None:
                    area.draw(last)
                else:
                    for number, line in trial_lines(look()).items():
                        if shown.get(number) != line:
                            shown[number] = line
                            terminal.out(line)
                if not picture.over:
                    time.sleep(_EVERY_S)
    finally:
        if last is not None:
            terminal.out_text(last)
    return ExitCode.OK
