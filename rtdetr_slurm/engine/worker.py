"""One rank of an action: what torchrun starts.

torchrun --nproc-per-node=2 -m rtdetr_slurm.engine.worker train -e spec.yaml [key=value ...]
"""

from __future__ import annotations

import faulthandler
import importlib
import os
import signal
import sys
import traceback
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from rtdetr_slurm.actions import require_available
from rtdetr_slurm.contract import Env, ExitCode, Status
from rtdetr_slurm.engine.arguments import Arguments, parse
from rtdetr_slurm.engine.stop import Interrupted, StopFlag, ignore_signals
from rtdetr_slurm.errors import UserError
from rtdetr_slurm.spec import LoadedSpec, dump_spec, load_spec

if TYPE_CHECKING:
    from rtdetr_slurm.engine.action import Action


def main(argv: Sequence[str] | None = None) -> int:
    """Run the action; returns the exit code. The launching process has held the stop signals."""
    stop = StopFlag()
    stop.listen()
    signal.signal(signal.SIGINT, signal.SIG_DFL)  # ctrl-C ends a rank at once and without a word
    faulthandler.enable()
    try:
        arguments = parse(argv)
        loaded = load_spec(arguments.spec, arguments.overrides, action=arguments.action)
        return run(loaded, arguments, stop)
    except UserError as error:
        print(f"rtdetr: error: {error}", file=sys.stderr, flush=True)
        return error.exit_code


def run(loaded: LoadedSpec, arguments: Arguments, stop: StopFlag) -> int:
    """Join the other ranks, run the action, and see that status.json tells how it ended."""
    from rtdetr_slurm.engine import distributed
    from rtdetr_slurm.engine.action import (
        Action,
        create_results_folder,
        results_folder,
        write_experiment,
    )

    folder = results_folder(loaded.experiment, arguments.action)
    create_results_folder(folder)
    accelerator = distributed.choose_accelerator(os.environ.get(Env.ACCELERATOR))
    context = distributed.start(accelerator)
    action = Action(
        name=arguments.action,
        experiment=loaded.experiment,
        resolved=loaded.resolved(),
        context=context,
        results_dir=folder,
        stop=stop,
        skip_bad_images=(arguments.bad_images or loaded.job.bad_images) == "skip",
    )
    try:
        action.record(Status.STARTED, f"{action.name} started")
        if context.is_main:
            write_experiment(action, dump_spec(loaded.experiment))
        kpi = _function(action.name)(action)
        action.record(Status.SUCCESS, f"{action.name} finished successfully", kpi=kpi)
        distributed.stop()
        return ExitCode.OK
    except Interrupted:
        action.record(Status.PREEMPTED, f"{action.name} was interrupted and can go on")
        action.say("stopped on request; the same command goes on from here")
        distributed.barrier()
        distributed.stop()
        return ExitCode.INTERRUPTED
    except Exception as error:
        return _report(action, error)


def _report(action: Action, error: Exception) -> int:
    """Print what went wrong, and get it into status.json: by this rank, or by the launcher."""
    from rtdetr_slurm.engine import failures

    failure = failures.explain(error, action.context.rank, action.context.world_size)
    if not failure.expected and not failure.by_peer:
        traceback.print_exc()
    if action.context.is_main or failure.exit_code != ExitCode.BAD_REQUEST:
        # A wrong request is wrong for all ranks, and once is enough; where it is not (a file that
        # one node lacks), the launching process of node 0 says it.
        print(f"rtdetr: error: rank {failure.rank}: {failure.reason}", file=sys.stderr, flush=True)
    if not action.context.is_main or failure.by_peer:
        failures.leave_note(action.results_dir, failure)
        return failure.exit_code
    try:
        action.status.fail(failure.failure_class, failure.reason)
    except OSError as problem:
        print(f"rtdetr: cannot write {action.status.path}: {problem.strerror}", file=sys.stderr)
    return failure.exit_code


def _function(name: str) -> Callable[[Action], dict[str, float]]:
    module, _, function = str(require_available(name).function).partition(":")
    found: Callable[[Action], dict[str, float]] = getattr(importlib.import_module(module), function)
    return found


if __name__ == "__main__":
    code = main()
    ignore_signals()  # the request is repeated until all ranks have ended; it must kill none
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code) if code not in (ExitCode.OK, ExitCode.INTERRUPTED) else sys.exit(code)
