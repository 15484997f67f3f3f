"""Activation checkpointing that is safe for batch norm."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager, nullcontext

from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.utils.checkpoint import checkpoint


def run(module: nn.Module, x: Tensor, *, again: bool) -> Tensor:
    """`module(x)`, which in training is computed again in the backward pass if `again`."""
    if again and module.training:
        return checkpointed(module, x)
    out: Tensor = module(x)
    return out


def checkpointed(module: nn.Module, x: Tensor) -> Tensor:
    """Run `module(x)`, keep none of its activations, and compute them again in the backward pass.

    The second pass normalises with the batch's own statistics like the first, but leaves the
    running statistics alone, so that they move once per step. Where chance decides (stochastic
    depth), it decides the same again.
    """
    out: Tensor = checkpoint(
        module,
        x,
        use_reentrant=False,
        preserve_rng_state=_draws(module),
        context_fn=lambda: (nullcontext(), _running_statistics_held(module)),
    )
    return out


def _draws(module: nn.Module) -> bool:
    return any(getattr(inside, "drop_prob", 0) for inside in module.modules())


@contextmanager
def _running_statistics_held(module: nn.Module) -> Iterator[None]:
    norms = [m for m in module.modules() if isinstance(m, _BatchNorm)]
    saved = [(norm.momentum, norm.num_batches_tracked) for norm in norms]
    for norm in norms:
        norm.momentum, norm.num_batches_tracked = 0.0, None
    try:
        yield
    finally:
        for norm, (momentum, count) in zip(norms, saved, strict=True):
            norm.momentum, norm.num_batches_tracked = momentum, count
