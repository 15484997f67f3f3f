"""`rtdetr-slurm automl extend`: add to the budget of a search."""

from __future__ import annotations

import argparse
from datetime import datetime

from rtdetr_slurm.cli import terminal
from rtdetr_slurm.cli.automl.sent import tell_sent
from rtdetr_slurm.cli.runs import add_run_arguments, chosen_run
from rtdetr_slurm.contract import ExitCode


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add_run_arguments(parser)
    parser.add_argument("--trials", type=int, default=0, metavar="N", help="so many trials more")
    parser.add_argument(
        "--gpu-hours",
        type=float,
        default=0.0,
        metavar="H",
        help="so many GPU hours more, where automl.max_gpu_hours limits them",
    )
    parser.add_argument(
        "--deadline",
        type=_moment,
        metavar="TIME",
        help="date and time (ISO 8601) after which no further trial begins",
    )


def run(args: argparse.Namespace) -> int:
    from rtdetr_slurm.submission.steering import Extension, extend_search

    found = chosen_run(args)
    more = Extension(args.trials, args.gpu_hours, args.deadline)
    added, jobs = extend_search(found, more, terminal.note)
    if added:
        terminal.note(f"{found.id}: {added} trials more")
    tell_sent(found, jobs)
    return ExitCode.OK


def _moment(text: str) -> datetime:
    """Of a time without a zone: this machine's."""
    try:
        return datetime.fromisoformat(text).astimezone()
    except ValueError:
        raise argparse.ArgumentTypeError(f"found {text!r}; allowed: 2026-01-31T18:00") from None
