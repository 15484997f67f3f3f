"""Inference form of a model: constants folded into the convolutions' weights."""

from __future__ import annotations

import copy
from typing import TypeVar

import torch
import torch.nn.functional as F
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

from rtdetr_slurm.engine.models.hybrid_encoder import RepVggBlock
from rtdetr_slurm.engine.models.layers import FrozenBatchNorm2d

ModuleT = TypeVar("ModuleT", bound=nn.Module)


@torch.no_grad()
def fused_copy(model: ModuleT) -> ModuleT:
    """Return a copy in eval mode, without gradients, that computes the same with fewer operations.

    Every batch norm is folded into the convolution registered just before it (which is the one it
    normalises in all blocks of this package and in timm's networks) and stays where there is none,
    every RepVGG block becomes one 3x3 convolution, and activations work in place.
    """
    model = copy.deepcopy(model).eval().requires_grad_(False)
    _fold_norms(model)
    for module in model.modules():
        if isinstance(module, RepVggBlock):
            _merge_branches(module)
        elif isinstance(module, nn.ReLU | nn.SiLU | nn.LeakyReLU):
            module.inplace = True
    return model


def _fold_norms(module: nn.Module) -> None:
    conv: nn.Conv2d | None = None
    for name, child in list(module.named_children()):
        if conv is not None and isinstance(child, _BatchNorm | FrozenBatchNorm2d):
            _fold(conv, child)
            setattr(module, name, nn.Identity())
            conv = None
        else:
            conv = child if isinstance(child, nn.Conv2d) else None
            _fold_norms(child)


def _fold(conv: nn.Conv2d, norm: _BatchNorm | FrozenBatchNorm2d) -> None:
    if isinstance(norm, _BatchNorm):
        norm = FrozenBatchNorm2d.from_batch_norm(norm)
    scale, shift = norm.scale_and_shift()
    conv.weight.mul_(scale[:, None, None, None])
    bias = shift if conv.bias is None else conv.bias * scale + shift
    conv.bias = nn.Parameter(bias, requires_grad=False)


def _merge_branches(block: RepVggBlock) -> None:
    if block.conv2 is None:
        return
    big, small = block.conv1.conv, block.conv2.conv
    big.weight.add_(F.pad(small.weight, [1, 1, 1, 1]))
    assert big.bias is not None  # folded just before
    assert small.bias is not None
    big.bias.add_(small.bias)
    block.conv2 = None
