"""One rank of an action."""

from __future__ import annotations

import faulthandler
import importlib
import os
import signal
import sys
import traceback
from collections.abc import Callable, Mapping, Sequence
from datetime import timedelta
from pathlib import Path

from rtdetr_slurm.actions import get_action
from rtdetr_slurm.contract import EXPERIMENT_YAML, Env, ExitCode, Status
from rtdetr_slurm.engine.process import distributed, loading
from rtdetr_slurm.engine.process.arguments import Arguments, parse
from rtdetr_slurm.engine.process.explain import explain
from rtdetr_slurm.engine.process.failures import leave_note
from rtdetr_slurm.engine.process.heartbeats import HEARTBEATS, beat_with
from rtdetr_slurm.engine.process.results import create_results_folder, results_folder
from rtdetr_slurm.engine.process.session import Session
from rtdetr_slurm.engine.process.stacks import dump_on_signal
from rtdetr_slurm.engine.process.standing import PATIENCE
from rtdetr_slurm.engine.process.stop import Interrupted, StopFlag
from rtdetr_slurm.engine.process.telling import telling
from rtdetr_slurm.errors import UserError
from rtdetr_slurm.runs.claim import Superseded, start_of
from rtdetr_slurm.spec import LoadedSpec, dump_spec, load_spec


def main(argv: Sequence[str] | None = None) -> int:
    """Run the action; returns the exit code. The launching process has held the stop signals."""
    dump_on_signal(os.environ)
    stop = StopFlag()
    stop.listen()
    signal.signal(signal.SIGINT, signal.SIG_DFL)  # ctrl-C ends a rank at once and without a word
    faulthandler.enable()
    try:
        words = sys.argv[1:] if argv is None else argv
        arguments = parse(words, get_action(words[0]).program)
        loaded = load_spec(arguments.spec, arguments.overrides, action=arguments.action)
        loaded = loaded.with_key_of(os.environ)
        return run(loaded, arguments, stop)
    except UserError as error:
        if os.environ.get("LOCAL_RANK", "0") == "0":  # all ranks of a node have met the same
            print(f"rtdetr: error: {error}", file=sys.stderr, flush=True)
        return error.exit_code


def run(loaded: LoadedSpec, arguments: Arguments, stop: StopFlag) -> int:
    """Join the other ranks, run the action, and see that status.json tells how it ended."""
    folder = results_folder(loaded.experiment, arguments.action)
    create_results_folder(folder)
    row = get_action(arguments.action)
    if row.reads or row.may_read:
        loading.start_server()
    action = _function(arguments.action)  # its imports take seconds, and no rank waits for another
    context = join(folder)
    session = Session(
        name=arguments.action,
        experiment=loaded.experiment,
        resolved=loaded.resolved(),
        context=context,
        results_dir=folder,
        stop=stop,
        skip_bad_images=skips_bad_images(loaded, arguments.bad_images),
        costs=arguments.costs,
        start=start_of(os.environ),
        key=loaded.key,
        deploy=arguments.deploy,
    )
    beat_with(session.phases, os.environ, context.local_rank)
    try:
        session.record(Status.STARTED, f"{session.name} started")
        if session.context.is_main:
            session.write(EXPERIMENT_YAML, dump_spec(loaded.experiment))
        with telling(session):
            kpi = action(session)
        session.record(Status.SUCCESS, f"{session.name} finished successfully", kpi=kpi)
        distributed.leave()
        return ExitCode.OK
    except Interrupted:
        session.record(Status.PREEMPTED, f"{session.name} was interrupted and can go on")
        session.say("stopped on request")
        distributed.barrier()
        distributed.leave()
        return ExitCode.INTERRUPTED
    except Exception as error:
        return _report(session, error)


def skips_bad_images(loaded: LoadedSpec, asked: str | None) -> bool:
    """Whether the action goes on without images that cannot be used: as `--bad-images` says, else
    if it does so by itself, else as the spec says."""
    if asked is not None:
        return asked == "skip"
    return get_action(loaded.action).skips_bad_images or loaded.job.bad_images == "skip"


def join(results_dir: Path) -> distributed.Context:
    """Choose the device and join the other ranks; who cannot leaves a note.

    Raises:
        SiteError: this node lacks what is needed.
    """
    wanted = os.environ.get(Env.ACCELERATOR)
    try:
        accelerator = distributed.choose_accelerator(wanted)
        context = distributed.join(accelerator, *timeouts(os.environ))
    except Exception as error:
        rank, ranks = (int(os.environ.get(name, n)) for name, n in (("RANK", 0), ("WORLD_SIZE", 1)))
        leave_note(results_dir, explain(error, rank, ranks))
        raise
    if context.is_main and not wanted:
        print(f"rtdetr: runs on {accelerator} ({Env.ACCELERATOR} is not set)", flush=True)
    return context


def timeouts(environ: Mapping[str, str]) -> tuple[timedelta, timedelta]:
    """How long a rank waits for the others in a collective, and for them to begin.

    The first is where somebody watches over hangs longer than they take, so that the cause is the
    first to be told, and a day where nobody is to look. The second is no longer than loading may
    take.
    """
    if HEARTBEATS not in environ:
        return distributed.COLLECTIVE_TIMEOUT, distributed.JOINING_TIMEOUT
    minutes = float(environ[Env.HANG_MINUTES])
    if not minutes:
        return timedelta(days=1), distributed.JOINING_TIMEOUT
    loading = timedelta(minutes=PATIENCE * minutes)
    return loading + timedelta(minutes=minutes + 5), min(loading, distributed.JOINING_TIMEOUT)


def _report(session: Session, error: Exception) -> int:
    """Print what went wrong, and get it into status.json: by this rank, or by the process
    that launched it."""
    failure = explain(error, session.context.rank, session.context.world_size)
    if not failure.expected and not failure.by_peer:
        traceback.print_exc()
    if session.context.is_main or failure.exit_code != ExitCode.BAD_REQUEST:
        # A wrong request is wrong for all ranks, and once is enough; where it is not (a file that
        # one node lacks), the launching process of node 0 says it.
        print(f"rtdetr: error: rank {failure.rank}: {failure}", file=sys.stderr, flush=True)
    if not session.context.is_main or failure.by_peer:
        leave_note(session.results_dir, failure)
        return failure.exit_code
    try:
        session.status.fail(failure.failure_class, failure.reason)
    except OSError as problem:
        print(f"rtdetr: cannot write {session.status.path}: {problem.strerror}", file=sys.stderr)
    except Superseded as problem:
        if not isinstance(error, Superseded):
            print(f"rtdetr: {problem}", file=sys.stderr)
    return failure.exit_code


def _function(name: str) -> Callable[[Session], dict[str, float]]:
    module, _, function = get_action(name).function.partition(":")
    found: Callable[[Session], dict[str, float]] = getattr(
        importlib.import_module(module), function
    )
    return found
