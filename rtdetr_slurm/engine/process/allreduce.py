"""One rank of `rtdetr probe`: meets the others, adds up a tensor with them, and takes the time."""

from __future__ import annotations

import faulthandler
import json
import os
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import suppress
from datetime import timedelta
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import torch
import torch.distributed as dist

from rtdetr_slurm import __version__
from rtdetr_slurm.contract import RUNTIMES, Env, ExitCode
from rtdetr_slurm.engine.process import distributed
from rtdetr_slurm.engine.process.stop import ignore_signals
from rtdetr_slurm.errors import ActionError, UserError
from rtdetr_slurm.files import write_atomic
from rtdetr_slurm.runs.probe import Reduced

_SIZES = {"cuda": 256 * 2**20, "cpu": 16 * 2**20}
"""Bytes: as much as the gradients of a model of 64 million weights on a GPU, less on a CPU."""
_LEAST_S, _MOST_ROUNDS = 0.5, 20
_BYTES = 4


def main(argv: Sequence[str] | None = None) -> int:
    """Take part, and on rank 0 write down what came of it; returns the exit code."""
    ignore_signals()
    record, limit_s = sys.argv[1:] if argv is None else argv
    limit = float(limit_s)
    # Where a time-out of the backend itself does not help: where every rank stands, and an end.
    faulthandler.dump_traceback_later(2 * limit, exit=True)
    began = time.monotonic()
    rank = os.environ.get("RANK", "0")
    try:
        accelerator = distributed.choose_accelerator(os.environ.get(Env.ACCELERATOR))
        patience = timedelta(seconds=limit)
        context = distributed.join(accelerator, patience, joining=patience)
        reduced = _measure(context, began)
        devices = distributed.gather_objects(_device_name(context.device))
        if context.is_main:
            found = {**reduced, "devices": devices}
            write_atomic(Path(record), json.dumps(found, indent=1, allow_nan=False) + "\n")
        distributed.leave()
    except UserError as error:
        print(f"rtdetr: error: rank {rank}: {error}", file=sys.stderr, flush=True)
        return error.exit_code
    except Exception as error:
        # Whatever it is: that the ranks lose one another is just what is to be found out.
        said = (str(error).splitlines() or [""])[0]
        print(
            f"rtdetr: error: rank {rank}: {type(error).__name__}: {said}",
            file=sys.stderr,
            flush=True,
        )
        return ExitCode.FAILED
    return ExitCode.OK


def _measure(context: distributed.Context, began: float) -> Reduced:
    """Add up a small tensor, which proves that all are here, then a large one again and again."""
    ranks = context.world_size
    numbers = torch.ones(1, device=context.device) * context.rank
    if float(distributed.sum_over_ranks(numbers)) != ranks * (ranks - 1) / 2:
        raise ActionError(f"an all-reduce over {ranks} ranks has a wrong sum: {float(numbers)}")
    join_s = time.monotonic() - began
    bandwidth = latency = None
    if ranks > 1:
        latency = 1e6 * _seconds_each(torch.zeros(1, device=context.device))
        size = _SIZES[context.device.type]
        seconds = _seconds_each(torch.zeros(size // _BYTES, device=context.device))
        bandwidth = bus_bandwidth(size, seconds, ranks)
    return {
        "version": __version__,
        "torch": torch.__version__,
        "backend": _backend(context.device),
        "ranks": ranks,
        "join_s": join_s,
        "bus_gb_s": bandwidth,
        "latency_us": latency,
        "devices": [],
        "tensorrt": list(_tensorrt()),
    }


def _tensorrt() -> Iterator[str]:
    """TensorRT's packages that are installed, with their versions."""
    for name in RUNTIMES:
        if name.startswith("tensorrt"):
            with suppress(PackageNotFoundError):
                yield f"{name} {version(name)}"


def bus_bandwidth(size: int, seconds: float, ranks: int) -> float:
    """1e9 bytes per second through the slowest link, whatever the number of ranks: a ring sends
    2 (n-1)/n of the data through each."""
    return size / seconds * 2 * (ranks - 1) / ranks / 1e9


def _seconds_each(tensor: torch.Tensor) -> float:
    """Seconds of one all-reduce of `tensor`."""
    _timed(tensor, 1)  # the first sets up connections
    # All must do the same number of rounds: rank 0 decides.
    rounds = torch.tensor([_LEAST_S / _timed(tensor, 1)], device=tensor.device)
    dist.broadcast(rounds, 0)
    count = max(1, min(_MOST_ROUNDS, int(rounds)))
    return _timed(tensor, count) / count


def _timed(tensor: torch.Tensor, rounds: int) -> float:
    began = time.monotonic()
    for _ in range(rounds):
        dist.all_reduce(tensor)
    if tensor.is_cuda:
        torch.cuda.synchronize(tensor.device)
    return time.monotonic() - began


def _backend(device: torch.device) -> str:
    if device.type == "cpu":
        return "gloo"
    version = ".".join(map(str, torch.cuda.nccl.version()))
    return f"nccl {version}, CUDA {torch.version.cuda}"


def _device_name(device: torch.device) -> str:
    if device.type == "cpu":
        return "CPU"
    facts = torch.cuda.get_device_properties(device)
    return f"{facts.name} {facts.total_memory / 2**30:.0f} GiB"


if __name__ == "__main__":
    code = main()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)  # as in worker.py
