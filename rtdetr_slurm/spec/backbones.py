"""What the login node knows of the backbones, which it has no torch to build: their modules, the
shapes of their tensors and the widths of their stages.

All of it is read from backbones.json, which `python -m rtdetr_slurm.engine.models.structure` writes
from the real ones; a test compares. Pure.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any, Literal, TypeAlias

Tree: TypeAlias = "Mapping[str, Tree | None]"
"""Names in a module; None is a parameter."""
Shape = tuple[int, ...]
Node = Mapping[str, Any]
"""A module of the file: name to the number of a module inside or to the shape of a tensor. PUTS_OUT
is there if it puts out one map, [B, C, H, W]."""

FILE = Path(__file__).with_name("backbones.json")
PUTS_OUT = "->map"
BUFFERS = ("running_mean", "running_var")
"""Tensors of batch norms that are no parameters; what has them is one."""
LAST = 3
"""The last stage; stage i has stride 4·2^i."""

LevelLayer = Literal["conv", "norm"]
_LEVEL_LAYERS: Mapping[str, LevelLayer] = {
    "convnext": "conv",
    "efficientvit": "norm",
    "fan": "norm",
}
"""Families with a layer behind each stage that is returned, as in TAO; `levels` in the backbone."""
CONV_WIDTHS = (512, 1024, 2048)
"""Of the convolutions, on the three levels that they are for."""


def family(backbone: str) -> str:
    """The first word of a backbone's name."""
    return backbone.split("_")[0]


def level_layer(backbone: str) -> LevelLayer | None:
    """What follows each stage that is returned."""
    return _LEVEL_LAYERS.get(family(backbone))


def stage_widths(backbone: str) -> list[int]:
    """Channels that the four stages put out, before what follows them."""
    return [int(width) for width in _file()["backbones"][backbone]["widths"]]


def backbone_modules(backbone: str, stages: Sequence[int], *, constant_norms: bool) -> Tree:
    """The modules of a backbone that is built up to the last of `stages`.

    Args:
        constant_norms: batch norms have no parameters.
    """
    tree = _tree(_root(backbone, max(stages)), constant_norms)
    if level_layer(backbone) is None:
        return tree
    return {**tree, "levels": {str(stage): {"weight": None, "bias": None} for stage in stages}}


def puts_out_map(backbone: str, module: str) -> bool:
    """Whether a module of a backbone, by its name in there, puts out one map."""
    in_levels, _, stage = module.rpartition(".")
    if in_levels == "levels":
        return stage.isdigit()
    node = _inside(_root(backbone, LAST), module)
    return isinstance(node, dict) and PUTS_OUT in node


def size_with(backbone: str, tensors: Mapping[str, Shape]) -> int | None:
    """How many tensors a backbone has that is built to the last stage of these; None where it does
    not have them all.

    Args:
        tensors: shapes by the names in there. Sides of one do not count, which the same weights
            have in one layout and not in another.
    """
    for last in range(LAST, -1, -1):
        root = _root(backbone, last)
        if not all(_has(root, name, shape) for name, shape in tensors.items()):
            return None if last == LAST else _size(_root(backbone, last + 1))
    return _size(_root(backbone, 0))


def sides(shape: Sequence[int]) -> Shape:
    """Those of a shape that are not one."""
    return tuple(side for side in shape if side != 1)


@lru_cache(maxsize=4096)
def _size(number: int) -> int:
    values = [value for name, value in _node(number).items() if name != PUTS_OUT]
    return sum(_size(value) if isinstance(value, int) else 1 for value in values)


@lru_cache(maxsize=1)
def _file() -> Mapping[str, Any]:
    found: Mapping[str, Any] = json.loads(FILE.read_text())
    return found


def _node(number: int) -> Node:
    node: Node = _file()["modules"][number]
    return node


def _root(backbone: str, last: int) -> int:
    number: int = _file()["backbones"][backbone]["built_to"][last]
    return number


def _inside(root: int, name: str) -> Node | list[int] | None:
    """What has a dotted name in a backbone: a module, a tensor's shape, or nothing."""
    found: Node | list[int] | None = _node(root)
    for part in name.split("."):
        value = found.get(part) if isinstance(found, dict) else None
        found = _node(value) if isinstance(value, int) else value
    return found


def _has(root: int, name: str, shape: Shape) -> bool:
    found = _inside(root, name)
    return isinstance(found, list) and sides(found) == sides(shape)


@lru_cache(maxsize=4096)
def _tree(number: int, constant_norms: bool) -> Tree:
    node = _node(number)
    constant = constant_norms and BUFFERS[0] in node
    return {
        name: _tree(value, constant_norms) if isinstance(value, int) else None
        for name, value in node.items()
        if name not in (PUTS_OUT, *BUFFERS) and not (constant and isinstance(value, list))
    }
