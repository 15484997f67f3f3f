"""`rtdetr-slurm logs`: the log of a run's jobs, to its end or as it grows."""

from __future__ import annotations

import argparse
import io

from rtdetr_slurm.cli import terminal
from rtdetr_slurm.cli.runs import add_run_arguments, chosen_run
from rtdetr_slurm.contract import ExitCode
from rtdetr_slurm.records import exists, open_file
from rtdetr_slurm.runs.run import Run
from rtdetr_slurm.runs.state import StageState, job_ids_of, task_history


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add_run_arguments(parser)
    parser.add_argument("--follow", action="store_true", help="go on until the run ends")


def run(args: argparse.Namespace) -> int:
    found = chosen_run(args)
    return _follow(found) if args.follow else _print_logs(found)


def _print_logs(run: Run) -> int:
    events = run.events()
    paths = [
        run.log_path(task.stage.name, job_id)
        for task in run.plan.tasks()
        for job_id in job_ids_of(task_history(events, task), task)
    ]
    logs = [path for path in dict.fromkeys(paths) if exists(path)]
    for path in logs:
        with open_file(path) as stream:
            for line in io.TextIOWrapper(stream, encoding="utf-8", errors="replace"):
                terminal.out_lines(line)
    if not logs:
        terminal.note(f"{run.id} has written no log yet")
    return ExitCode.OK


def _follow(run: Run) -> int:
    from rtdetr_slurm.cli.watching import follow

    state = follow(run, terminal.out_log).state
    return ExitCode.OK if state is StageState.SUCCESS else ExitCode.FAILED
