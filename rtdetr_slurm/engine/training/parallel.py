"""One training on several ranks: each holds the whole model (ddp), or a part of it (fsdp).

What is split has DTensors in the place of tensors. A checkpoint never has: `whole` puts them
together before it is written, and `split_like` takes them apart after it was read.
"""

from __future__ import annotations

import copy
import warnings
from collections.abc import Iterator
from contextlib import AbstractContextManager, nullcontext
from inspect import signature
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.distributed.tensor import DTensor, distribute_tensor
from torch.nn.parallel import DistributedDataParallel

from rtdetr_slurm.engine.models import RTDETR
from rtdetr_slurm.engine.process.distributed import Context

_NAMES = signature(DistributedDataParallel).parameters
_SYNC_BUFFERS = "forward_sync_buffers" if "forward_sync_buffers" in _NAMES else "broadcast_buffers"
"""DDP's argument as this torch calls it; its old name is deprecated, its new one too young for the
oldest torch that we support."""


def distribute(
    model: RTDETR, objective: nn.Module, context: Context, strategy: Literal["ddp", "fsdp"] = "ddp"
) -> nn.Module:
    """What a step calls where there is more than one rank; batch norm is synchronised on CUDA.

    Its parameters are averaged over the ranks' batches by their backward pass. With fsdp the
    parameters of `objective` are others afterwards.
    """
    if context.world_size == 1:
        return objective
    if context.device.type == "cuda":
        for name, child in model.named_children():
            setattr(model, name, nn.SyncBatchNorm.convert_sync_batchnorm(child))
    if strategy == "fsdp":
        split(model, context)
        return split(objective, context)
    options: dict[str, Any] = {_SYNC_BUFFERS: False}
    return DistributedDataParallel(
        objective,
        device_ids=[context.device] if context.device.type == "cuda" else None,
        gradient_as_bucket_view=True,
        **options,
    )


def split(module: nn.Module, context: Context) -> nn.Module:
    """Leave each rank its share of every parameter, by FSDP2; a detector is put together block by
    block while it computes."""
    from torch.distributed.device_mesh import init_device_mesh
    from torch.distributed.fsdp import fully_shard

    # Losses read what the detector returns, and nothing changes it in place.
    warnings.filterwarnings("ignore", r"FSDP2-wrapped module .* returned a view tensor")
    mesh = init_device_mesh(context.device.type, (context.world_size,))
    for parameter in module.parameters():
        if not isinstance(parameter, DTensor):
            parameter.data = parameter.data.contiguous()  # FSDP2 takes no other layout
    blocks = _blocks(module) if isinstance(module, RTDETR) else ()
    for block in (*blocks, module):
        fully_shard(block, mesh=mesh)
    return module


def _blocks(model: RTDETR) -> Iterator[nn.Module]:
    """The parts of a detector that are computed one after the other: the backbone's stages, the
    encoder, the decoder's layers."""
    yield from _called(model.backbone)
    yield model.encoder
    yield from model.decoder.decoder.layers


def _called(module: nn.Module) -> Iterator[nn.Module]:
    """The outermost modules inside that are called, and hold parameters; others only hold them."""
    for child in module.children():
        if type(child).forward is nn.Module.forward:
            yield from _called(child)
        elif any(True for _ in child.parameters()):
            yield child


def whole(state: Any) -> Any:
    """A state dict with nothing split in it: what is, is put together in host memory. All ranks
    must call it with the same."""
    if isinstance(state, DTensor):
        return state.full_tensor().cpu()
    if isinstance(state, dict):
        together = copy.copy(state)  # with what torch keeps beside its keys
        together.update((key, whole(value)) for key, value in state.items())
        return together
    if isinstance(state, list):
        return [whole(value) for value in state]
    return state


def split_like(tensor: Tensor, own: Tensor) -> Tensor:
    """A whole tensor as `own` is held: split or not, and in memory laid out like it, which fused
    optimizers take for granted of a parameter and its moments. All ranks must call it."""
    if isinstance(own, DTensor):
        return distribute_tensor(tensor.to(own.device), own.device_mesh, own.placements)
    return torch.empty_like(own).copy_(tensor)


def local(tensor: Tensor) -> Tensor:
    """What of a tensor this rank holds, in the same memory."""
    return tensor.to_local() if isinstance(tensor, DTensor) else tensor


def copies(module: nn.Module) -> list[Tensor]:
    """The parameters that every rank holds a whole copy of."""
    return [one for one in module.parameters() if not isinstance(one, DTensor)]


def synchronised(objective: nn.Module, now: bool) -> AbstractContextManager[None]:
    """For a forward and a backward pass: whether the ranks' gradients become their mean in it.

    What is split averages them in every one, for it has no room for all of them.
    """
    if now or not isinstance(objective, DistributedDataParallel):
        return nullcontext()
    return objective.no_sync()
