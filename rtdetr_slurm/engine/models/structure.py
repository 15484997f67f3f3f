"""Writes spec/backbones.json, from which the login node knows the backbones.

python -m rtdetr_slurm.engine.models.structure
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from typing import Any, get_args

import torch
from torch import nn

from rtdetr_slurm.engine.models.backbone import Backbone as BuiltBackbone
from rtdetr_slurm.engine.models.backbone import build_backbone
from rtdetr_slurm.engine.models.features import captured
from rtdetr_slurm.files import write_atomic
from rtdetr_slurm.spec.backbones import BUFFERS, FILE, LAST, PUTS_OUT
from rtdetr_slurm.spec.model import Backbone

LEVELS = "levels"
"""What follows the stages, which depends on the levels that are asked for."""
_IMAGE = (64, 96)


class Catalogue:
    """Modules by number, equal ones once."""

    def __init__(self) -> None:
        self.modules: list[Mapping[str, Any]] = []
        self._numbers: dict[str, int] = {}

    def add(self, module: nn.Module, maps: Iterable[str], name: str = "") -> int:
        """The number of a module with all that is inside.

        Args:
            maps: dotted names of the modules that put out one map.
            name: its own.
        """
        node: dict[str, Any] = {PUTS_OUT: True} if name in maps else {}
        tensors = {**dict(module.named_parameters(recurse=False)), **_buffers(module)}
        node |= {key: list(tensor.shape) for key, tensor in tensors.items()}
        for key, child in module.named_children():
            if name or key != LEVELS:
                node[key] = self.add(child, maps, f"{name}.{key}" if name else key)
        text = json.dumps(node)
        if text not in self._numbers:
            self._numbers[text] = len(self.modules)
            self.modules.append(node)
        return self._numbers[text]


def described(names: Iterable[str], stages: Iterable[int] = range(LAST + 1)) -> dict[str, Any]:
    """What backbones.json holds of these backbones, built up to each of `stages`."""
    catalogue = Catalogue()
    backbones: dict[str, Any] = {}
    for name in names:
        with torch.device("meta"):
            built = {stage: build_backbone(name, [stage]).eval() for stage in stages}
        whole = built[LAST]
        maps = _modules_with_maps(whole)
        backbones[name] = {
            "widths": [_width(one) for one in built.values()],
            "built_to": [catalogue.add(one, maps) for one in built.values()],
        }
    return {"modules": catalogue.modules, "backbones": backbones}


def _buffers(module: nn.Module) -> dict[str, torch.Tensor]:
    return {name: buffer for name, buffer in module.named_buffers(recurse=False) if name in BUFFERS}


@torch.no_grad()
def _modules_with_maps(backbone: nn.Module) -> frozenset[str]:
    """Names of the modules that put out one map, [B, C, H, W]."""
    height, width = _IMAGE
    sizes = [(height // stride, width // stride) for stride in (2, 4, 8, 16, 32)]
    with captured(backbone, [name for name, _ in backbone.named_modules() if name]) as found:
        backbone(torch.zeros(1, 3, height, width, device="meta"))
    return frozenset(
        name
        for name, outputs in found.items()
        if len(outputs) == 1 and outputs[0].dim() == 4 and tuple(outputs[0].shape[2:]) in sizes
    )


def _width(backbone: BuiltBackbone) -> int:
    """Channels of the last stage, before what follows it."""
    for name, layer in backbone.named_modules():
        if name.startswith(f"{LEVELS}.") and isinstance(layer, nn.Conv2d):
            return layer.in_channels
    return backbone.channels[-1]


def _text(found: Mapping[str, Any]) -> str:
    """JSON with a module a line, so that a change is a line in a diff."""
    modules = ",\n".join(map(json.dumps, found["modules"]))
    entries = found["backbones"].items()
    backbones = ",\n".join(f"{json.dumps(name)}: {json.dumps(entry)}" for name, entry in entries)
    return f'{{"modules": [\n{modules}\n],\n"backbones": {{\n{backbones}\n}}}}\n'


if __name__ == "__main__":
    write_atomic(FILE, _text(described(get_args(Backbone))))
