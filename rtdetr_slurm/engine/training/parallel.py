"""One training on several ranks."""

from __future__ import annotations

from inspect import signature
from typing import Any

from torch import nn
from torch.nn.parallel import DistributedDataParallel

from rtdetr_slurm.engine.models import RTDETR
from rtdetr_slurm.engine.process.distributed import Context

_NAMES = signature(DistributedDataParallel).parameters
_SYNC_BUFFERS = "forward_sync_buffers" if "forward_sync_buffers" in _NAMES else "broadcast_buffers"
"""DDP's argument as this torch calls it; its old name is deprecated, its new one too young for the
oldest torch that we support."""


def distribute(model: RTDETR, objective: nn.Module, context: Context) -> nn.Module:
    """DDP where there is more than one rank; batch norm is synchronised on CUDA."""
    if context.world_size == 1:
        return objective
    if context.device.type == "cuda":
        for name, child in model.named_children():
            setattr(model, name, nn.SyncBatchNorm.convert_sync_batchnorm(child))
    options: dict[str, Any] = {_SYNC_BUFFERS: False}
    return DistributedDataParallel(
        objective,
        device_ids=[context.device] if context.device.type == "cuda" else None,
        gradient_as_bucket_view=True,
        **options,
    )
