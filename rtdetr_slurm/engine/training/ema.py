"""Exponential moving average of the weights."""

from __future__ import annotations

import copy
import math

import torch
from torch import Tensor, nn

from rtdetr_slurm.engine.training.parallel import local

WARMUP_UPDATES = 2000
"""Time constant of the decay's own warm-up, as in RT-DETR's published training."""


class Ema:
    """A second copy of the model that follows the trained one slowly.

    After t updates the decay is `decay * (1 - exp(-t / 2000))`, so that a short training is not
    dominated by its random start. Running statistics are averaged like weights; whole-number
    buffers are copied.

    Attributes:
        module: the averaged model, in eval mode.
        updates: how often it was updated.
    """

    def __init__(self, model: nn.Module, decay: float, *, cpu_offload: bool = False) -> None:
        self.decay = decay
        self.updates = 0
        self.module = copy.deepcopy(model).eval().requires_grad_(False)
        if cpu_offload:
            self.module.cpu()
        self.follow(model)

    def follow(self, model: nn.Module) -> None:
        """Average from now on what this rank holds of `model`, of which `module` has the same."""
        ours, theirs = (
            {name: local(tensor) for name, tensor in one.state_dict().items()}
            for one in (self.module, model)
        )
        averaged = [name for name, tensor in ours.items() if tensor.is_floating_point()]
        self._averages = [ours[name] for name in averaged]
        self._sources = [theirs[name] for name in averaged]
        self._copies = [(ours[n], theirs[n]) for n in ours if n not in set(averaged)]

    @torch.no_grad()
    def update(self) -> None:
        """Move towards the model's present weights."""
        self.updates += 1
        sources: list[Tensor] = self._sources
        if self._averages[0].device != sources[0].device:
            sources = [source.to(self._averages[0].device) for source in sources]
        decay = self.decay * (1 - math.exp(-self.updates / WARMUP_UPDATES))
        torch._foreach_lerp_(self._averages, sources, 1 - decay)
        for ours, theirs in self._copies:
            ours.copy_(theirs)

    def module_on(self, device: torch.device) -> nn.Module:
        """The averaged model on `device`: itself, or a copy where it is kept elsewhere."""
        if self._averages[0].device == device:
            return self.module
        return copy.deepcopy(self.module).to(device)
