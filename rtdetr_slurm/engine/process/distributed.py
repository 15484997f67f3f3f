"""Ranks, devices and the few collectives the engine uses; everything works with one rank too."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, TypeVar, cast

import numpy as np
import torch
import torch.distributed as dist
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from rtdetr_slurm.contract import Env
from rtdetr_slurm.engine.process.environment import node_cpus
from rtdetr_slurm.engine.process.meeting import meet
from rtdetr_slurm.errors import SiteError, UserError

T = TypeVar("T")

COLLECTIVE_TIMEOUT = timedelta(minutes=30)
"""How long a rank waits for the others where nobody watches over hangs."""
JOINING_TIMEOUT = timedelta(minutes=30)
"""How long a rank waits for the others to begin, at most."""

PIECE = 1 << 24
"""Bytes that are sent to all ranks at once."""


@dataclass(frozen=True)
class Context:
    """Where this process stands among the ranks, and the device it computes on."""

    rank: int
    world_size: int
    local_rank: int
    local_world_size: int
    device: torch.device

    @property
    def is_main(self) -> bool:
        """Whether this is the rank that writes files and talks."""
        return self.rank == 0

    @property
    def cpus(self) -> int:
        """CPU cores this rank may count on: the node's, shared among its ranks."""
        return max(1, node_cpus(os.environ) // self.local_world_size)


def choose_accelerator(wanted: str | None) -> str:
    """Turn the value of RTDETR_ACCELERATOR into `cuda` or `cpu`.

    Raises:
        SiteError: cuda is demanded and torch sees no device, or the value is neither.
    """
    if wanted not in (None, "", "cuda", "cpu"):
        raise SiteError(f"{Env.ACCELERATOR} is '{wanted}'; allowed are cuda and cpu")
    found = torch.cuda.is_available()
    if wanted == "cuda" and not found:
        visible = os.environ.get(Env.CUDA_VISIBLE_DEVICES)
        raise SiteError(
            f"{Env.ACCELERATOR}=cuda, but torch {torch.__version__} sees no CUDA device "
            f"(built for CUDA {torch.version.cuda}, {Env.CUDA_VISIBLE_DEVICES}={visible!r}): check "
            "the driver, the container's --nv, and what the job was given"
        )
    return wanted or ("cuda" if found else "cpu")


def check_devices(ranks: int, found: int) -> None:
    """Refuse fewer CUDA devices than this node has ranks.

    Raises:
        SiteError: saying both numbers.
    """
    if found < ranks:
        raise SiteError(
            f"{ranks} GPUs are needed on this node, torch sees {found} "
            f"({Env.CUDA_VISIBLE_DEVICES}={os.environ.get(Env.CUDA_VISIBLE_DEVICES)!r})"
        )


def join(
    accelerator: str,
    timeout: timedelta = COLLECTIVE_TIMEOUT,
    joining: timedelta = JOINING_TIMEOUT,
) -> Context:
    """Read torchrun's environment, choose the device, join the process group.

    Args:
        timeout: for every collective.
        joining: for all to be there.

    Raises:
        SiteError: there are fewer devices than ranks.
        NotAllMet: not all ranks have come.
    """
    rank, world_size = int(os.environ.get("RANK", 0)), int(os.environ.get("WORLD_SIZE", 1))
    local_rank = int(os.environ.get("LOCAL_RANK", 0))
    local_world_size = int(os.environ.get("LOCAL_WORLD_SIZE", 1))
    if accelerator == "cuda":
        check_devices(local_world_size, torch.cuda.device_count())
        device = torch.device("cuda", local_rank)
        torch.cuda.set_device(device)
    else:
        device = torch.device("cpu")
    context = Context(rank, world_size, local_rank, local_world_size, device)
    if world_size > 1:
        dist.init_process_group(
            "nccl" if accelerator == "cuda" else "gloo",
            store=meet(os.environ, joining),
            rank=rank,
            world_size=world_size,
            timeout=timeout,
            device_id=device if accelerator == "cuda" else None,
        )
    return context


def leave() -> None:
    """Leave the process group, if there is one."""
    if dist.is_initialized():
        dist.destroy_process_group()


def sum_over_ranks(value: Tensor) -> Tensor:
    """Add `value` over all ranks, in place; no host synchronisation."""
    if dist.is_initialized():
        dist.all_reduce(value)
    return value


def average_over_ranks(tensors: list[Tensor]) -> None:
    """Replace each tensor by its mean over all ranks, in one all-reduce."""
    if not dist.is_initialized() or not tensors:
        return
    flat = torch.cat([t.detach().reshape(-1).float() for t in tensors])
    dist.all_reduce(flat)
    flat /= dist.get_world_size()
    offset = 0
    for tensor in tensors:
        tensor.copy_(flat[offset : offset + tensor.numel()].view_as(tensor))
        offset += tensor.numel()


def gather_objects(value: T) -> list[T]:
    """Every rank's `value` in rank order, on rank 0; an empty list elsewhere."""
    if not dist.is_initialized():
        return [value]
    is_main = dist.get_rank() == 0
    received: list[Any] | None = [None] * dist.get_world_size() if is_main else None
    dist.gather_object(value, received)
    return cast("list[T]", received or [])


def on_main(function: Callable[[], T]) -> T:
    """Run `function` on rank 0 alone; every rank returns its result or raises its UserError."""
    if not dist.is_initialized():
        return function()
    result: list[Any] = [None, None]
    if dist.get_rank() == 0:
        try:
            result[0] = function()
        except UserError as error:
            result[1] = error
    dist.broadcast_object_list(result)
    if result[1] is not None:
        raise result[1]
    return cast("T", result[0])


def spread_bytes(memory: NDArray[np.uint8] | None, device: torch.device) -> None:
    """Write what rank 0 has in its memory into the memory, as large, of all ranks that have one."""
    is_main = dist.get_rank() == 0
    assert memory is not None or not is_main
    size = on_main(lambda: 0 if memory is None else len(memory))
    for start in range(0, size, PIECE):
        end = min(start + PIECE, size)
        piece = torch.empty(end - start, dtype=torch.uint8)
        if memory is not None and is_main:
            piece.numpy()[:] = memory[start:end]
        piece = piece.to(device)
        dist.broadcast(piece, 0)
        if memory is not None and not is_main:
            memory[start:end] = piece.cpu().numpy()


def barrier() -> None:
    """Wait until every rank is here."""
    if dist.is_initialized():
        dist.barrier()


def spread_over_ranks(tensors: list[Tensor]) -> float:
    """The largest absolute difference between two ranks' values of the same element."""
    if not dist.is_initialized() or not tensors:
        return 0.0
    flat = torch.cat([t.detach().reshape(-1).float() for t in tensors])
    # The largest of x and of -x, in one all-reduce: their sum is max - min.
    extremes = torch.stack([flat, -flat])
    dist.all_reduce(extremes, dist.ReduceOp.MAX)
    return float(extremes.sum(0).max())


def plain_norms(module: nn.Module) -> list[_BatchNorm]:
    """The batch norms of which every rank sees its own batches alone."""
    norms = (m for m in module.modules() if isinstance(m, _BatchNorm))
    return [norm for norm in norms if not isinstance(norm, nn.SyncBatchNorm)]


def average_norm_statistics(norms: Iterable[_BatchNorm]) -> None:
    """Make the running statistics of plain batch norms the mean over all ranks, of those that
    gather any at the moment."""
    learning = [norm for norm in norms if norm.training]
    average_over_ranks(
        [s for norm in learning for s in (norm.running_mean, norm.running_var) if s is not None]
    )
