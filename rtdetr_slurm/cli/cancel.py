"""`rtdetr-slurm cancel`: end a run's jobs, queued or running."""

from __future__ import annotations

import argparse

from rtdetr_slurm.cli import terminal
from rtdetr_slurm.cli.runs import add_run_arguments, chosen_run
from rtdetr_slurm.contract import ExitCode
from rtdetr_slurm.submission.cancel import cancel_run


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add_run_arguments(parser)


def run(args: argparse.Namespace) -> int:
    found = chosen_run(args)
    result = cancel_run(found)
    for task, job_id in result.jobs.items():
        terminal.note(f"cancelling {found.id}: {task}, job {job_id}")
    for task in result.gone:
        terminal.note(f"cancelled {found.id}: {task}, which has no job (any more)")
    for task in result.unknown:
        terminal.note(
            f"{found.id}: whether {task} was queued is not known (its submission was begun, and no "
            "answer recorded), and the scheduler shows no job of it. Should one turn up, it ends "
            "as soon as it starts"
        )
    for problem in result.unwritten:
        terminal.note(f"this could not be written down: {problem}")
    if not (result.jobs or result.gone or result.unknown):
        terminal.note(f"{found.id} has ended already; nothing to cancel")
    return ExitCode.SITE_CANNOT if result.unknown else ExitCode.OK
