"""`rtdetr-slurm automl resume`: go on with a search."""

from __future__ import annotations

import argparse

from rtdetr_slurm.cli import terminal
from rtdetr_slurm.cli.automl.sent import tell_sent
from rtdetr_slurm.cli.runs import add_run_arguments, chosen_run
from rtdetr_slurm.contract import ExitCode


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add_run_arguments(parser)


def run(args: argparse.Namespace) -> int:
    from rtdetr_slurm.submission.steering import resume_search

    found = chosen_run(args)
    tell_sent(found, resume_search(found, terminal.note))
    return ExitCode.OK
