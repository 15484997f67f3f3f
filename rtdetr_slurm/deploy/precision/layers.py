"""`gen_trt_engine.tensorrt.layers_precision`: which nodes of a graph its entries mean."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from fnmatch import fnmatchcase

from onnx import ModelProto

from rtdetr_slurm.engine.quantization.onnx_file import layer_name
from rtdetr_slurm.errors import RequestError, near

_FIELD = "gen_trt_engine.tensorrt.layers_precision"


def asked_formats(model: ModelProto, entries: Sequence[str]) -> dict[str, str]:
    """Node to the number format that the last entry which means it gives it.

    An entry names a node as the file does, or a layer or module by its dotted name as the
    checkpoint does, with all that is in it; * and ? stand for parts of either.

    Args:
        model: each of its nodes has a name of its own.
        entries: `name:format`.

    Raises:
        RequestError: a name means no node; says the nearest.
    """
    dotted = {node.name: layer_name(node.name) for node in model.graph.node}
    found: dict[str, str] = {}
    for index, entry in enumerate(entries):
        name, _, number = entry.rpartition(":")
        meant = [node for node, layer in dotted.items() if _means(name, node, layer)]
        if not meant:
            raise RequestError(
                f"{_FIELD}[{index}]: found {name!r}, and the ONNX file has no such layer; allowed: "
                "names of its nodes, dotted names such as encoder.fpn_blocks.0, and parts of both "
                f"with * and ?{near(name, _names(dotted))}"
            )
        found |= dict.fromkeys(meant, number)
    return found


def _means(name: str, node: str, layer: str) -> bool:
    if name == node or f"{layer}.".startswith(f"{name}."):
        return True
    return fnmatchcase(node, name) or fnmatchcase(layer, name)


def _names(dotted: Mapping[str, str]) -> Iterator[str]:
    """All that an entry may say without * and ?."""
    yield from dotted
    modules = dict.fromkeys(dotted.values())
    yield from modules
    for name in modules:
        while name := name.rpartition(".")[0]:
            yield name
