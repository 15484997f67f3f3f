"""`rtdetr-slurm cancel`: end a run's jobs, queued or running."""

from __future__ import annotations

import argparse
import sys

from rtdetr_slurm.cli.runs import add_run_arguments, chosen_run
from rtdetr_slurm.contract import ExitCode
from rtdetr_slurm.submission.cancel import cancel_run


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add_run_arguments(parser)


def run(args: argparse.Namespace) -> int:
    found = chosen_run(args)
    cancelled = cancel_run(found)
    if not cancelled:
        print(f"{found.id} has ended already; nothing to cancel", file=sys.stderr)
    for stage, job_id in cancelled.items():
        print(f"cancelling {found.id}: {stage}, job {job_id}", file=sys.stderr)
    return ExitCode.OK
