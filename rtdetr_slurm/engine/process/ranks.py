"""The ranks of this node: started as torchrun starts them, told to stop, ended together.

torchrun's own agent would hold torch, half a gigabyte, on every node for as long as it waits.
"""

from __future__ import annotations

import shlex
import signal
import subprocess
import sys
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from rtdetr_slurm.contract import ExitCode, FailureClass
from rtdetr_slurm.engine.process.failures import RankFailure
from rtdetr_slurm.engine.process.hangs import HangWatch
from rtdetr_slurm.engine.process.rendezvous import Rendezvous
from rtdetr_slurm.engine.process.stacks import DUMP_SIGNAL
from rtdetr_slurm.engine.process.stop import STOP_SIGNALS
from rtdetr_slurm.lifetime import ends_with_me, signal_name

WORKER_MODULE = "rtdetr_slurm.engine.process.worker"
_POLL_SECONDS = 0.2
_LAST_WORDS_SECONDS = 30.0
"""How long the other ranks have to end by themselves when one has failed; some wait for it in a
collective, and would for longer."""
_END_SECONDS = 60.0
"""How long a killed rank may take to end; one that the kernel holds, most often for a file system,
may never."""


@dataclass(frozen=True)
class RanksEnd:
    """How the ranks of this node ended.

    Attributes:
        failures: of ranks that a signal ended; the others have told their own story.
        hung: whether they made no steps any more, for which a file system may be the reason.
    """

    exit_code: int
    failures: list[RankFailure] = field(default_factory=list)
    hung: bool = False


class Cancelled(Exception):
    """A signal other than a request to stop ended the ranks."""


def torchrun_command(
    rendezvous: Rendezvous, arguments: Sequence[str], module: str = WORKER_MODULE
) -> str:
    """The command line of torchrun that does the same."""
    options = [
        f"--nnodes={rendezvous.nodes}",
        f"--node-rank={rendezvous.node_rank}",
        f"--nproc-per-node={rendezvous.processes_per_node}",
        f"--master-addr={rendezvous.master_addr}",
        f"--master-port={rendezvous.master_port}",
    ]
    return shlex.join(["torchrun", *options, "-m", module, *arguments])


def rank_command(arguments: Sequence[str], module: str = WORKER_MODULE) -> list[str]:
    """What a rank is."""
    return [sys.executable, "-m", module, *arguments]


def rank_variables(rendezvous: Rendezvous, local_rank: int) -> dict[str, str]:
    """What torchrun tells a rank, and torch.distributed reads."""
    ranks = rendezvous.processes_per_node
    values = {
        "RANK": rendezvous.node_rank * ranks + local_rank,
        "WORLD_SIZE": rendezvous.nodes * ranks,
        "LOCAL_RANK": local_rank,
        "LOCAL_WORLD_SIZE": ranks,
        "GROUP_RANK": rendezvous.node_rank,
        "MASTER_ADDR": rendezvous.master_addr,
        "MASTER_PORT": rendezvous.master_port,
    }
    return {name: str(value) for name, value in values.items()}


def run_ranks(
    rendezvous: Rendezvous,
    arguments: Sequence[str],
    environment: Mapping[str, str],
    watch: HangWatch | None = None,
    module: str = WORKER_MODULE,
) -> RanksEnd:
    """Run the ranks of this node until they end; none is left afterwards but what the kernel holds.

    The stop signals must be blocked in the calling process (stop.hold_signals): ranks inherit
    that, so that a signal that comes while they start waits for them.

    Args:
        environment: of every rank, to which its place is added.
        watch: over ranks that make no steps any more; None where they make none.
        module: that every rank runs.

    Raises:
        Cancelled: by a second ctrl-C or a lost terminal; the ranks are gone.
    """
    ranks: list[subprocess.Popen[bytes]] = []
    out_of_memory = kernel_kills()
    first = rendezvous.node_rank * rendezvous.processes_per_node
    try:
        with _terminal_signals() as from_terminal:
            line = torchrun_command(rendezvous, arguments, module)
            print(f"rtdetr: starts its ranks like {line}", flush=True)
            # It kills who does not expect it, as a rank that only begins.
            before = signal.pthread_sigmask(signal.SIG_BLOCK, {DUMP_SIGNAL})
            for local_rank in range(rendezvous.processes_per_node):
                own = rank_variables(rendezvous, local_rank)
                own |= {} if watch is None else watch.variables(local_rank)
                ranks.append(
                    subprocess.Popen(
                        rank_command(arguments, module),
                        env={**environment, **own},
                        start_new_session=True,  # ctrl-C is for this process alone
                        preexec_fn=ends_with_me(),
                        pass_fds=() if watch is None else watch.descriptors(local_rank),
                    )
                )
            signal.pthread_sigmask(signal.SIG_SETMASK, before)
            codes = _wait(ranks, watch, from_terminal)
            if codes is None and watch is not None:
                return RanksEnd(ExitCode.FAILED, watch.explain(_living(ranks)), hung=True)
    finally:
        end_ranks(ranks)
        if watch is not None:
            watch.close()
    codes = codes or {}
    by_rank = {first + n: code for n, code in codes.items()}
    starved = out_of_memory is None or kernel_kills() != out_of_memory
    return RanksEnd(exit_code(codes.values()), killed(by_rank, starved=starved))


def _living(ranks: Sequence[subprocess.Popen[bytes]]) -> dict[int, int]:
    """Local rank to process, of those that have not ended."""
    return {n: rank.pid for n, rank in enumerate(ranks) if rank.poll() is None}


def _wait(
    ranks: Sequence[subprocess.Popen[bytes]],
    watch: HangWatch | None,
    from_terminal: list[signal.Signals],
) -> dict[int, int] | None:
    """The exit codes, by local rank, of the ranks that ended by themselves: all, unless one fails.
    None when they hang.

    Every stop signal that this process gets goes to all ranks as SIGUSR2. So does the first
    ctrl-C; the second one cancels, as a lost terminal does.

    Raises:
        Cancelled: by one of these.
    """
    deadline: float | None = None
    asked = False
    while True:
        stop = signal.sigtimedwait(STOP_SIGNALS, _POLL_SECONDS) is not None
        while from_terminal:
            number = from_terminal.pop(0)
            if asked or number != signal.SIGINT:
                raise Cancelled(f"stopped by {number.name}")
            asked = stop = True
            print("rtdetr: stops at the next step; ctrl-C once more ends it at once", flush=True)
        if stop:
            for rank in ranks:
                rank.send_signal(signal.SIGUSR2)
        codes = {n: code for n, rank in enumerate(ranks) if (code := rank.poll()) is not None}
        if len(codes) == len(ranks) or (deadline is not None and time.monotonic() > deadline):
            return codes
        if deadline is None and watch is not None and watch.hangs([*_living(ranks)]):
            return None
        if deadline is None and not set(codes.values()) <= {ExitCode.OK, ExitCode.INTERRUPTED}:
            deadline = time.monotonic() + _LAST_WORDS_SECONDS


def end_ranks(ranks: Sequence[subprocess.Popen[bytes]]) -> None:
    """End those that are left; one that does not is told and left to the scheduler."""
    for rank in ranks:
        rank.kill()
    deadline = time.monotonic() + _END_SECONDS
    for rank in ranks:
        try:
            rank.wait(max(deadline - time.monotonic(), 0))
        except subprocess.TimeoutExpired:
            print(f"rtdetr: process {rank.pid} was killed and does not end", flush=True)


@contextmanager
def _terminal_signals() -> Iterator[list[signal.Signals]]:
    """What a terminal sends, as it comes; what was to be ignored (nohup) is.

    They are acted on between two looks at the ranks: a handler that raised could do so within
    Popen.poll, which would then hold its lock for ever.
    """
    come: list[signal.Signals] = []
    before = {
        number: signal.signal(number, lambda number, _frame: come.append(signal.Signals(number)))
        for number in (signal.SIGHUP, signal.SIGQUIT, signal.SIGINT)
        if signal.getsignal(number) is not signal.SIG_IGN
    }
    try:
        yield come
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def exit_code(codes: Iterable[int]) -> int:
    """One exit code for those of several ranks: what a user can correct comes first."""
    found = set(codes)
    for code in (ExitCode.OK, ExitCode.INTERRUPTED):
        if found == {code}:
            return code
    for code in (ExitCode.BAD_REQUEST, ExitCode.SITE_CANNOT):
        if code in found:
            return code
    return ExitCode.FAILED


def kernel_kills() -> int | None:
    """Processes that this machine's kernel has killed for want of memory, in all jobs; None where
    it does not say."""
    try:
        lines = Path("/proc/vmstat").read_text().splitlines()
    except OSError:
        return None
    counts = [line.split()[1] for line in lines if line.startswith("oom_kill ")]
    return int(counts[0]) if counts else None


def killed(codes: dict[int, int], *, starved: bool) -> list[RankFailure]:
    """Failures for the ranks that a signal ended (exit code -n).

    Args:
        starved: whether the kernel has killed for want of memory meanwhile, or does not say.
    """
    failures = []
    for rank, code in codes.items():
        if code >= 0:
            continue
        name = signal_name(-code)
        failure_class = FailureClass.UNKNOWN
        reason = f"rank {rank} was ended by {name}; the log has what it said last"
        if -code == signal.SIGKILL:
            reason = f"rank {rank} was killed by {name}"
            if starved:
                failure_class = FailureClass.OOM_HOST
                reason += ": most often the node ran out of memory"
            else:
                reason += ", and not by the kernel for want of memory"
        failures.append(RankFailure(rank, failure_class, reason, time=time.time()))
    return failures
