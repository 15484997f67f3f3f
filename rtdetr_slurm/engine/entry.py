"""`rtdetr`: the command inside the container, with TAO's arguments.

It validates the spec, checks the launch against it, and starts torchrun's agent in this process;
the work itself is in worker.py.
"""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from rtdetr_slurm.contract import (
    EXPERIMENT_YAML,
    STATUS_JSON,
    Env,
    ExitCode,
    FailureClass,
)
from rtdetr_slurm.devices import chosen_devices
from rtdetr_slurm.engine.arguments import DEFAULT_SPECS, Arguments, parse
from rtdetr_slurm.engine.stop import hold_signals
from rtdetr_slurm.errors import RequestError, UserError
from rtdetr_slurm.runs.status import StatusLog, is_terminal, read_status
from rtdetr_slurm.spec import ExperimentConfig, LoadedSpec, load_spec, to_yaml

if TYPE_CHECKING:
    from rtdetr_slurm.engine.failures import Failure

NOTE_SECONDS = 10.0
"""How long node 0 waits for the note of the rank that failed first, when all its own only lost
the connection."""


def main(argv: Sequence[str] | None = None) -> int:
    """The command; stop signals are this process's to pass on from here to its end."""
    hold_signals()
    return command(argv)


def command(argv: Sequence[str] | None = None) -> int:
    """Run the command line; returns the exit code."""
    try:
        arguments = parse(argv)
        if arguments.action == DEFAULT_SPECS:
            return write_default_spec(arguments)
        loaded = load_spec(arguments.spec, arguments.overrides, action=arguments.action)
        return run(loaded, arguments)
    except UserError as error:
        print(f"rtdetr: error: {error}", file=sys.stderr, flush=True)
        return error.exit_code


def write_default_spec(arguments: Arguments) -> int:
    """`rtdetr default_specs results_dir=DIR`: a complete spec with every default, to start from.

    Raises:
        RequestError: no folder is named, or it holds such a file already.
    """
    given = dict(item.split("=", 1) for item in arguments.overrides)
    if set(given) != {"results_dir"} or not given["results_dir"]:
        raise RequestError("default_specs takes exactly results_dir=DIR, the folder to write to")
    path = Path(given["results_dir"], EXPERIMENT_YAML)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("x") as stream:
            stream.write(to_yaml(ExperimentConfig().model_dump()))
    except FileExistsError:
        raise RequestError(f"{path} exists already and is left as it is") from None
    except OSError as error:
        raise RequestError(f"cannot write {path}: {error.strerror}") from None
    print(path)
    return ExitCode.OK


def run(loaded: LoadedSpec, arguments: Arguments) -> int:
    """Check the launch, start the workers, and see that the action's status.json has an end."""
    from rtdetr_slurm.engine.action import create_results_folder, results_folder
    from rtdetr_slurm.engine.failures import remove_notes
    from rtdetr_slurm.engine.launcher import Cancelled, launch
    from rtdetr_slurm.engine.topology import read_topology

    is_main = os.environ.get(Env.NODE_RANK, os.environ.get(Env.RANK, "0")) == "0"
    folder = results_folder(loaded.experiment, arguments.action)
    create_results_folder(folder)
    ending = Ending(folder, is_main=is_main)
    try:
        topology = read_topology(os.environ, arguments.action, loaded.topology)
        prepare_devices(loaded, topology.processes_per_node, launched=topology.launched)
        if is_main:
            remove_notes(folder)
        outcome = launch(topology, arguments.command_line())
    except UserError as error:
        ending.failed(error.failure_class, str(error))
        raise
    except Cancelled as error:
        ending.failed(FailureClass.CANCELLED, str(error))
        return ExitCode.FAILED
    if outcome.exit_code not in (ExitCode.OK, ExitCode.INTERRUPTED):
        ending.explain(outcome.failures)
    return outcome.exit_code


def prepare_devices(loaded: LoadedSpec, processes: int, *, launched: bool) -> None:
    """Choose the accelerator for the workers and see that every rank has a device.

    Raises:
        SiteError: CUDA is wanted and not there, or not often enough.
    """
    from rtdetr_slurm.engine.distributed import choose_accelerator
    from rtdetr_slurm.engine.topology import check_devices

    wanted = os.environ.get(Env.ACCELERATOR)
    if wanted != "cpu" and not launched:
        visible = os.environ.get(Env.CUDA_VISIBLE_DEVICES)
        os.environ[Env.CUDA_VISIBLE_DEVICES] = chosen_devices(loaded.topology.gpu_ids, visible)
    accelerator = choose_accelerator(wanted)
    if not wanted:
        print(f"rtdetr: runs on {accelerator} ({Env.ACCELERATOR} is not set)", flush=True)
    if accelerator == "cuda":
        import torch

        check_devices(processes, torch.cuda.device_count())
    os.environ[Env.ACCELERATOR] = accelerator


class Ending:
    """Writes the FAILURE line that a rank could not write: it was not rank 0, or it was killed.

    Only node 0 writes to status.json; the others leave notes for it.
    """

    def __init__(self, folder: Path, *, is_main: bool) -> None:
        self.folder, self.is_main = folder, is_main
        self.status = StatusLog(folder / STATUS_JSON)
        self.lines_before = len(read_status(self.status.path))

    def failed(self, failure_class: FailureClass, reason: str) -> None:
        """End status.json with a FAILURE, unless this start has ended it already."""
        from rtdetr_slurm.engine.failures import Failure, leave_note

        if not self.is_main:
            rank = int(os.environ.get(Env.NODE_RANK, "1"))
            leave_note(self.folder, Failure(rank, failure_class, reason, time=time.time()))
        elif not self.is_over():
            self.status.fail(failure_class, reason)

    def is_over(self) -> bool:
        """Whether this start has written a last line."""
        written = read_status(self.status.path)[self.lines_before :]
        return any(is_terminal(line) for line in written)

    def explain(self, local: Sequence[Failure]) -> None:
        """Find the first failure of all ranks and see that status.json has it."""
        from rtdetr_slurm.engine.failures import (
            Failure,
            leave_note,
            read_notes,
            remove_notes,
            root_cause,
        )

        for failure in local:
            print(f"rtdetr: error: {failure.reason}", file=sys.stderr, flush=True)
        if not self.is_main:
            for failure in local:
                leave_note(self.folder, failure)
            return
        deadline = time.monotonic() + NOTE_SECONDS
        while not self.is_over():
            cause = root_cause([*local, *read_notes(self.folder)])
            if (cause is not None and not cause.by_peer) or time.monotonic() > deadline:
                break
            time.sleep(0.2)
        if not self.is_over():
            cause = cause or Failure(0, FailureClass.UNKNOWN, "a rank failed without a word")
            if cause.exit_code == ExitCode.BAD_REQUEST:
                print(f"rtdetr: error: {cause.reason}", file=sys.stderr, flush=True)
            self.status.fail(cause.failure_class, cause.reason)
        remove_notes(self.folder)


if __name__ == "__main__":
    sys.exit(main())
