"""Starting torchrun's agent in this process, and passing stop signals on to its workers."""

from __future__ import annotations

import logging
import os
import shlex
import signal
import threading
import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from rtdetr_slurm.contract import ExitCode, FailureClass
from rtdetr_slurm.engine.process.failures import RankFailure
from rtdetr_slurm.engine.process.rendezvous import Rendezvous
from rtdetr_slurm.engine.process.stop import STOP_SIGNALS

WORKER_MODULE = "rtdetr_slurm.engine.process.worker"
_POLL_SECONDS = 0.2


@dataclass(frozen=True)
class WorkersEnd:
    """How the workers of this node ended.

    Attributes:
        failures: of workers that a signal ended; the others have told their own story.
    """

    exit_code: int
    failures: list[RankFailure] = field(default_factory=list)


class Cancelled(Exception):
    """A signal other than a request to stop ended the workers."""


def torchrun_arguments(rendezvous: Rendezvous, worker_arguments: Sequence[str]) -> list[str]:
    """The arguments of the torchrun command that does the same."""
    return [
        f"--nnodes={rendezvous.nodes}",
        f"--node-rank={rendezvous.node_rank}",
        f"--nproc-per-node={rendezvous.processes_per_node}",
        f"--master-addr={rendezvous.master_addr}",
        f"--master-port={rendezvous.master_port}",
        "--max-restarts=0",
        "-m",
        WORKER_MODULE,
        *worker_arguments,
    ]


def run_workers(rendezvous: Rendezvous, worker_arguments: Sequence[str]) -> WorkersEnd:
    """Run the workers of this node until they end.

    The stop signals must be blocked in the calling process (stop.hold_signals): workers inherit
    that, so that a signal that comes while they start waits for them.

    Raises:
        Cancelled: by ctrl-C or a lost terminal; the workers are gone.
    """
    arguments = torchrun_arguments(rendezvous, worker_arguments)
    print(f"rtdetr: torchrun {shlex.join(arguments)}", flush=True)
    forwarder = SignalForwarder()
    forwarder.start()
    try:
        return _run_agent(arguments, rendezvous)
    finally:
        forwarder.end()


class SignalForwarder(threading.Thread):
    """Passes every stop signal that this process gets on to its children as SIGUSR2.

    One that comes before there are children is kept for those to come.
    """

    def __init__(self) -> None:
        super().__init__(name="signal-forwarder", daemon=True)
        self._ended = threading.Event()
        self._told: set[int] = set()

    def run(self) -> None:
        asked = False
        while not self._ended.is_set():
            if signal.sigtimedwait(STOP_SIGNALS, _POLL_SECONDS) is not None:
                asked = True
                self._told.clear()  # a repeated request is passed on again
            if asked:
                self._tell(children(os.getpid()) - self._told)

    def _tell(self, processes: set[int]) -> None:
        for process in processes:
            try:
                os.kill(process, signal.SIGUSR2)
            except ProcessLookupError:
                continue
            self._told.add(process)

    def end(self) -> None:
        self._ended.set()
        self.join()


def children(parent: int) -> set[int]:
    """Process ids of the direct children of a process, from /proc."""
    found = set()
    for entry in Path("/proc").iterdir():
        if not entry.name.isdigit():
            continue
        try:
            # "pid (command) state ppid ..."; the command may hold anything but ends at the last ")"
            fields = (entry / "stat").read_text().rpartition(")")[2].split()
        except OSError:  # it has ended meanwhile
            continue
        if int(fields[1]) == parent:
            found.add(int(entry.name))
    return found


def _run_agent(arguments: list[str], rendezvous: Rendezvous) -> WorkersEnd:
    cores = max(1, len(os.sched_getaffinity(0)) // rendezvous.processes_per_node)
    os.environ.setdefault("OMP_NUM_THREADS", str(cores))
    # Threads that wait spin a little and then sleep: as fast as GNU OpenMP's default on idle cores,
    # and several times faster where other processes want them, too.
    os.environ.setdefault("GOMP_SPINCOUNT", "10000")

    from torch.distributed.elastic.multiprocessing.api import SignalException
    from torch.distributed.elastic.multiprocessing.errors import ChildFailedError
    from torch.distributed.launcher.api import elastic_launch
    from torch.distributed.run import config_from_args, parse_args

    if "LOGLEVEL" not in os.environ:
        _quieten("torch.distributed.elastic")
    config, command, command_arguments = config_from_args(parse_args(arguments))
    try:
        elastic_launch(config, command)(*command_arguments)
    except ChildFailedError as error:
        codes = {rank: failure.exitcode for rank, failure in error.failures.items()}
        return WorkersEnd(exit_code(codes.values()), killed(codes))
    except SignalException as error:
        raise Cancelled(f"stopped by {error.sigval.name}") from None
    except KeyboardInterrupt:
        raise Cancelled("stopped by SIGINT") from None
    return WorkersEnd(ExitCode.OK)


def _quieten(package: str) -> None:
    """Its loggers repeat what the ranks have said, at length."""
    for name in list(logging.root.manager.loggerDict):
        if name.startswith(package):
            logging.getLogger(name).setLevel(logging.CRITICAL)


def exit_code(codes: Iterable[int]) -> int:
    """One exit code for those of several workers: what a user can correct comes first."""
    found = set(codes)
    if found == {ExitCode.INTERRUPTED}:
        return ExitCode.INTERRUPTED
    for code in (ExitCode.BAD_REQUEST, ExitCode.SITE_CANNOT):
        if code in found:
            return code
    return ExitCode.FAILED


def killed(codes: dict[int, int]) -> list[RankFailure]:
    """Failures for the workers that a signal ended (exit code -n)."""
    failures = []
    for rank, code in codes.items():
        if code >= 0:
            continue
        name = signal.Signals(-code).name
        failure_class = FailureClass.UNKNOWN
        reason = f"rank {rank} was ended by {name}; the log has what it said last"
        if -code == signal.SIGKILL:  # what the kernel sends when the memory is full
            failure_class = FailureClass.OOM_HOST
            reason = f"rank {rank} was killed by {name}: most often the node ran out of memory"
        failures.append(RankFailure(rank, failure_class, reason, time=time.time()))
    return failures
