"""`rtdetr-slurm resume`: queue what is missing of a run."""

from __future__ import annotations

import argparse

from rtdetr_slurm.cli import terminal
from rtdetr_slurm.cli.runs import add_run_arguments, chosen_run
from rtdetr_slurm.contract import ExitCode


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add_run_arguments(parser)
    parser.add_argument(
        "--again",
        action="store_true",
        help="also where another run that does the same is under way",
    )


def run(args: argparse.Namespace) -> int:
    from rtdetr_slurm.submission.resume import resume_run

    found = chosen_run(args)
    jobs = resume_run(found, again=args.again, on_note=terminal.note)
    if jobs:
        ids = ", ".join(f"{name} {job_id}" for name, job_id in jobs.items())
        terminal.note(f"resumed {found.id} (job: {ids})")
    else:
        terminal.note(f"{found.id}: nothing is missing; every stage has succeeded, waits or runs")
    terminal.out(found.path)
    return ExitCode.OK
