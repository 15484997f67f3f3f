"""What an exception on a rank means."""

from __future__ import annotations

import signal
import time

import torch
import torch.distributed as dist

from rtdetr_slurm.contract import FailureClass
from rtdetr_slurm.engine.process.failures import RankFailure, is_no_space, no_space
from rtdetr_slurm.engine.process.loading import killed
from rtdetr_slurm.engine.process.meeting import NotAllMet
from rtdetr_slurm.errors import UserError
from rtdetr_slurm.runs.failures import BY_PEER, ONE_VALUE


def explain(error: BaseException, rank: int, world_size: int) -> RankFailure:
    """Classify what a rank's work raised."""
    now = time.time()
    if isinstance(error, UserError):
        node_rank = error.node_rank if isinstance(error, NotAllMet) else None
        return RankFailure(
            rank, error.failure_class, str(error), error.exit_code, time=now, node_rank=node_rank
        )
    if isinstance(error, torch.OutOfMemoryError):
        return RankFailure(rank, FailureClass.OOM_GPU, _first_line(error), time=now)
    if isinstance(error, MemoryError):
        reason = f"{type(error).__name__}: {_first_line(error)}".rstrip(": ")
        return RankFailure(rank, FailureClass.OOM_HOST, reason, time=now)
    if isinstance(error, OSError) and is_no_space(error):
        return RankFailure(rank, FailureClass.CONFIG, no_space(error, error.filename), time=now)
    if "DataLoader worker" in str(error) and (ended := killed()) is not None:
        pid, number = ended
        reason = f"DataLoader worker (pid {pid}) is killed by signal: {signal.strsignal(number)}"
        starved = number in (signal.SIGKILL, signal.SIGBUS)
        failure_class = FailureClass.OOM_HOST if starved else FailureClass.UNKNOWN
        return RankFailure(rank, failure_class, reason, time=now)
    if ONE_VALUE in str(error):
        return RankFailure(rank, FailureClass.CONFIG, _first_line(error), time=now)
    by_peer = world_size > 1 and _is_communication(error)
    reason = f"{type(error).__name__}: {_first_line(error)}"
    return RankFailure(
        rank,
        FailureClass.INFRA if by_peer else FailureClass.UNKNOWN,
        f"{BY_PEER}: {reason}" if by_peer else reason,
        expected=False,
        by_peer=by_peer,
        time=now,
    )


def _is_communication(error: BaseException) -> bool:
    if isinstance(error, dist.DistError):
        return True
    signs = ("gloo", "nccl", "connection closed by peer", "connection reset", "store->get")
    return isinstance(error, RuntimeError) and any(sign in str(error).lower() for sign in signs)


def _first_line(error: BaseException) -> str:
    return (str(error).splitlines() or [""])[0]
