"""What modules inside a detector put out, by forward hooks."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from functools import partial
from itertools import accumulate
from typing import Any

import torch
from torch import Tensor, nn

from rtdetr_slurm.engine.models.rtdetr import RTDETR

Features = Mapping[str, tuple[Tensor, ...]]
"""Name of a module to the tensors that it put out; of a list, all of them."""


@contextmanager
def captured(model: nn.Module, names: Iterable[str]) -> Iterator[Features]:
    """Note the outputs of the modules called `names` while the model runs inside.

    Of a module that runs several times its last output counts. What is noted is a copy: some of the
    modules that follow work in place. The hooks are gone afterwards, so that neither copies of the
    model nor the second pass of activation checkpointing meet them; that the modules around are
    computed in parts stays, as that pass is to be the same as the first.
    """
    found: dict[str, tuple[Tensor, ...]] = {}
    with ExitStack() as hooks:
        for name in dict.fromkeys(names):
            for around in accumulate(name.split(".")[:-1], "{}.{}".format):
                module: Any = model.get_submodule(around)
                if hasattr(module, "in_parts"):
                    module.in_parts = True
            note = partial(_note, found, name)
            hooks.callback(model.get_submodule(name).register_forward_hook(note).remove)
        yield found


def _note(
    found: dict[str, tuple[Tensor, ...]], name: str, _module: nn.Module, _inputs: Any, output: Any
) -> None:
    tensors = output if isinstance(output, list | tuple) else [output]
    found[name] = tuple(tensor.clone() for tensor in tensors)


@torch.no_grad()
def sample_features(model: RTDETR, names: Iterable[str]) -> Features:
    """What these modules of backbone, encoder or decoder.input_proj put out for a small blank
    image: how many tensors there are, of what kind and width."""
    training = model.training
    model.eval()  # batch norms must not move
    image = torch.zeros(1, 3, 64, 64, device=next(model.parameters()).device)
    with captured(model, names) as found:
        maps = model.encoder(model.backbone(image))
        for projection, feature in zip(model.decoder.input_proj, maps, strict=True):
            projection(feature)
    model.train(training)
    return found
