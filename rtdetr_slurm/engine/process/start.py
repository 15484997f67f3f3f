"""Starting the ranks of this node, and seeing that status.json tells how they ended.

No torch here: this process waits for as long as the ranks work, and would hold it for nothing.
"""

from __future__ import annotations

import os
import shlex
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from rtdetr_slurm.actions import get_action
from rtdetr_slurm.contract import Env, ExitCode, FailureClass
from rtdetr_slurm.engine.process.arguments import Arguments
from rtdetr_slurm.engine.process.by_hand import claimed_by_hand
from rtdetr_slurm.engine.process.environment import accelerated, rank_environment
from rtdetr_slurm.engine.process.failures import remove_notes
from rtdetr_slurm.engine.process.hangs import HangWatch, hang_minutes, in_time, remove_reports
from rtdetr_slurm.engine.process.ranks import Cancelled, RanksEnd, run_ranks
from rtdetr_slurm.engine.process.rendezvous import node_rank_variable, read_rendezvous
from rtdetr_slurm.engine.process.results import create_results_folder, results_folder
from rtdetr_slurm.engine.process.status_end import StatusEnd
from rtdetr_slurm.errors import UserError
from rtdetr_slurm.runs.checkpoints import RESUME_FIELD, resume_candidates
from rtdetr_slurm.runs.claim import start_of
from rtdetr_slurm.spec import LoadedSpec
from rtdetr_slurm.spec.overrides import parse_override


def start(loaded: LoadedSpec, arguments: Arguments) -> int:
    """Check the launch against the spec, run the ranks, and return the exit code.

    Raises:
        UserError: the launch is not what the spec asks for, or this machine cannot do it.
    """
    folder = results_folder(loaded.experiment, arguments.action)
    create_results_folder(folder)
    node_rank = os.environ.get(node_rank_variable(os.environ), "0")
    start = start_of(os.environ)
    if start is not None or node_rank != "0":
        return _start(loaded, arguments, StatusEnd(folder, node_rank, start))
    with claimed_by_hand(folder, loaded) as start:
        return _start(loaded, arguments, StatusEnd(folder, node_rank, start))


def _start(loaded: LoadedSpec, arguments: Arguments, status: StatusEnd) -> int:
    try:
        asked = loaded.topology
        environ = accelerated(os.environ, asked)
        rendezvous = read_rendezvous(environ, get_action(arguments.action), asked)
        environment = rank_environment(environ, asked, rendezvous)
        minutes = hang_minutes(os.environ, loaded.job.hang_minutes)
        environment[Env.HANG_MINUTES] = f"{minutes:g}"
        if loaded.key is not None:
            environment[Env.ENCRYPTION_KEY] = loaded.key
        if status.is_main:
            remove_notes(status.folder)
            remove_reports(status.folder)
        watch = HangWatch(
            minutes,
            ranks=rendezvous.processes_per_node,
            nodes=rendezvous.nodes,
            node_rank=rendezvous.node_rank,
            start=0 if status.start is None else status.start.restart,
            folder=status.folder,
            environ=os.environ,
        )
        end = run_ranks(rendezvous, arguments.command_line(), environment, watch)
    except UserError as error:
        status.failed(error.failure_class, str(error))
        raise
    except Cancelled as error:
        status.failed(FailureClass.CANCELLED, str(error))
        print(f"rtdetr: {error}", file=sys.stderr, flush=True)
        end = RanksEnd(ExitCode.FAILED)
    else:
        tell_end(status, end)
    if status.is_main and end.exit_code in (ExitCode.FAILED, ExitCode.INTERRUPTED):
        _in_its_time(end, lambda: print(f"rtdetr: {way_on(arguments, status.folder)}", flush=True))
    return end.exit_code


def tell_end(status: StatusEnd, end: RanksEnd) -> None:
    """See that status.json tells of a failure."""
    if end.exit_code not in (ExitCode.OK, ExitCode.INTERRUPTED):
        _in_its_time(end, lambda: status.explain(end.failures))


def _in_its_time(end: RanksEnd, use_folder: Callable[[], None]) -> None:
    """After a hang the results folder may be what does not answer; the log has been told first."""
    if end.hung:
        in_time(use_folder)
    else:
        use_folder()


def way_on(arguments: Arguments, folder: Path) -> str:
    """What goes on from where an action has stopped, for who has started it by hand."""
    found = resume_candidates(folder) if get_action(arguments.action).resumable else []
    if not found:
        return "there is nothing to go on from: the same command begins again"
    overrides = [one for one in arguments.overrides if parse_override(one).key != RESUME_FIELD]
    program = get_action(arguments.action).program
    again = replace(arguments, overrides=(*overrides, f"{RESUME_FIELD}={found[0].path}"))
    return f"by hand this goes on with: {shlex.join([program, *again.command_line()])}"
