"""`rtdetr-slurm logs`: the log of a run's jobs, to its end or as it grows."""

from __future__ import annotations

import argparse
import sys

from rtdetr_slurm.cli.status import chosen_run
from rtdetr_slurm.contract import ExitCode
from rtdetr_slurm.runs.run import Run
from rtdetr_slurm.runs.state import StageState


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("run", metavar="RUN", help="a run id, its beginning, or a path")
    parser.add_argument("--follow", action="store_true", help="go on until the run ends")
    parser.add_argument("--site", metavar="FILE", help="site profile; tells where the runs are")


def run(args: argparse.Namespace) -> int:
    found = chosen_run(args)
    return _follow(found) if args.follow else _print_logs(found)


def _print_logs(run: Run) -> int:
    job_ids = list(dict.fromkeys(e["job_id"] for e in run.events() if e.get("job_id")))
    logs = [path for path in map(run.log_path, job_ids) if path.exists()]
    for path in logs:
        with path.open(encoding="utf-8", errors="replace") as stream:
            sys.stdout.writelines(stream)
    if not logs:
        print(f"{run.id} has written no log yet", file=sys.stderr)
    return ExitCode.OK


def _follow(run: Run) -> int:
    from rtdetr_slurm.cli.watching import StateLines
    from rtdetr_slurm.slurm.follow import Follower

    lines = StateLines()
    follower = Follower(run, on_line=_print_line, on_state=lines.state, on_note=lines.note)
    state = follower.follow().state
    return ExitCode.OK if state is StageState.SUCCESS else ExitCode.FAILED


def _print_line(line: str) -> None:
    print(line, flush=True)
