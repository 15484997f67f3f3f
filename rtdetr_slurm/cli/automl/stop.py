"""`rtdetr-slurm automl stop`: have no further trial of a search begin."""

from __future__ import annotations

import argparse

from rtdetr_slurm.cli import terminal
from rtdetr_slurm.cli.runs import add_run_arguments, chosen_run
from rtdetr_slurm.contract import ExitCode


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add_run_arguments(parser)


def run(args: argparse.Namespace) -> int:
    from rtdetr_slurm.submission.steering import stop_search

    found = chosen_run(args)
    over = stop_search(found, "it was stopped on request")
    if over is None:
        terminal.note(
            f"{found.id}: no further trial begins; those at work are trained to their end, and "
            "then the best of all is found"
        )
    else:
        terminal.note(f"{found.id}: no further trial would have begun: {over}")
    return ExitCode.OK
