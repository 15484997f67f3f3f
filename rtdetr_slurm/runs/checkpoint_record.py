"""What a file of weights says of itself, read without torch. Standard library only.

A .pth file is a zip archive with one pickle in it, which refers to the tensors' data beside it.
Here everything but plain data becomes a stand-in that does nothing, so that nothing in the file
runs. A .safetensors file begins with a JSON header.
"""

from __future__ import annotations

import json
import pickle
import zipfile
from collections import OrderedDict
from collections.abc import Mapping
from contextlib import nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, BinaryIO, TypedDict, TypeVar

from rtdetr_slurm.contract import (
    HUGGING_FACE_CONFIG,
    HUGGING_FACE_PROCESSOR,
    HUGGING_FACE_WEIGHTS,
    QUANTIZE_VERSION,
)
from rtdetr_slurm.records import BadRecord, Prose, check_version, checked, open_file, read_json

MODEL_NAME = "rtdetr"
"""What a checkpoint of this engine has as `tao_model`."""
CONTAINERS = (("ema", "module"), ("ema",), ("model",), ("state_dict",), ())
"""Where a checkpoint may keep its tensors, best first: averaged weights before raw ones."""
SAFETENSORS = ".safetensors"
_MOST_BYTES = 64 * 1024 * 1024

Shape = tuple[int, ...]
T = TypeVar("T")


@dataclass(frozen=True)
class WeightsRecord:
    """What a file says of its weights.

    Attributes:
        shapes: of the tensors that would be used, by the names that they have in the file; empty
            where they cannot be known without torch, as in PyTorch's format from before 1.6.
        spec: the resolved spec that it was trained with; None where a file holds weights alone, or
            is not of this engine.
        classes: id to name, as a checkpoint of this engine has them.
        resumable: whether it holds all of a training of this engine.
        config: the config.json beside Hugging Face's weights; None where there is none.
        processor: the preprocessor_config.json there, likewise.
        quantization: what a detector that `quantize` has left says of that, for `quantization_of`;
            None of another one.
    """

    shapes: Mapping[str, Shape] = field(default_factory=dict)
    spec: Mapping[str, Any] | None = None
    classes: Mapping[int, str] = field(default_factory=dict)
    resumable: bool = False
    config: Mapping[str, Any] | None = None
    processor: Mapping[str, Any] | None = None
    quantization: Mapping[str, Any] | None = None


class QuantizedLayer(TypedDict):
    """Number formats of a layer; activations None: they are not quantized."""

    weights: str
    activations: str | None


class Quantization(TypedDict):
    """`quantization` of a checkpoint: by what it was made, what was asked for, and every layer."""

    schema_version: int
    library: Prose
    spec: Mapping[str, Any]
    layers: Mapping[str, QuantizedLayer]


def quantization_of(found: Any, path: Path) -> Quantization | None:
    """What a checkpoint says under `quantization`, checked; None of None.

    Raises:
        NewerVersion: a newer version has made it.
        BadRecord: it is nothing that `quantize` writes.
    """
    if found is None:
        return None
    check_version(found, f"quantized checkpoint {path}", QUANTIZE_VERSION)
    return checked(Quantization, found, path)


def read_weights_record(path: Path, stream: BinaryIO | None = None) -> WeightsRecord:
    """What the file of weights at `path` says of itself; nothing, where it is encrypted.

    Args:
        stream: what is in it, where it is encrypted.

    Raises:
        FileNotFoundError: there is none.
        BadRecord: it cannot be read.
    """
    config = _beside(path, HUGGING_FACE_CONFIG)
    processor = _beside(path, HUGGING_FACE_PROCESSOR)
    try:
        with open_file(path) if stream is None else nullcontext(stream) as stream:
            if path.suffix == SAFETENSORS:
                shapes = _shapes(safetensors_header(stream))
                return WeightsRecord(shapes, config=config, processor=processor)
            content = _unpickled(stream)
    except (OSError, BadRecord):
        raise
    except Exception as error:  # pickle and zipfile raise of all kinds on what is not theirs
        raise BadRecord(path, f"cannot be read as a checkpoint: {error}") from error
    if not isinstance(content, dict):
        return WeightsRecord()
    shapes = {name: found.shape for name, found in find_tensors(content, _Tensor).items()}
    own = content.get("tao_model") == MODEL_NAME
    spec, quantization = content.get("spec"), content.get("quantization")
    return WeightsRecord(
        shapes,
        spec if own and isinstance(spec, dict) else None,
        _classes(content.get("classes")) if own else {},
        resumable=own and "optimizer" in content,
        config=config,
        processor=processor,
        quantization=quantization if own and isinstance(quantization, dict) else None,
    )


def _classes(found: Any) -> dict[int, str]:
    if not isinstance(found, dict):
        return {}
    return {n: name for n, name in found.items() if type(n) is int and isinstance(name, str)}


def only_to_use(path: Path) -> str:
    """What is said where weights for training, or of a plain detector, were expected."""
    return (
        f"{path} holds a quantized detector, which evaluate, inference and export take, with "
        "is_quantized: true, and nothing else does; name the checkpoint that it was made of"
    )


def not_quantized(path: Path) -> str:
    """What is said where a quantized detector was expected."""
    return f"{path} is no checkpoint that `quantize` has left; allowed: false"


def find_tensors(content: Any, kind: type[T]) -> dict[str, T]:
    """The tensors of a checkpoint, name to tensor, from the best of CONTAINERS that has some.

    Args:
        kind: what a tensor is.
    """
    for keys in CONTAINERS:
        inner = content
        for key in keys:
            inner = inner.get(key) if isinstance(inner, Mapping) else None
        if isinstance(inner, Mapping):
            tensors = {n: v for n, v in inner.items() if isinstance(n, str) and isinstance(v, kind)}
            if tensors:
                return tensors
    return {}


def safetensors_header(stream: BinaryIO) -> dict[str, dict[str, Any]]:
    """Name to what the header says of each tensor: dtype, shape, data_offsets.

    Raises:
        ValueError: it is no such file.
    """
    length = int.from_bytes(stream.read(8), "little")
    text = stream.read(length) if 0 < length <= _MOST_BYTES else b""
    header = json.loads(text)
    if not isinstance(header, dict):
        raise ValueError("its header is no object")
    return {name: one for name, one in header.items() if name != "__metadata__"}


def _beside(path: Path, name: str) -> Mapping[str, Any] | None:
    """What a file beside Hugging Face's weights says; None where there is none."""
    if path.name not in HUGGING_FACE_WEIGHTS:
        return None
    try:
        content = read_json(path.with_name(name))
    except FileNotFoundError:
        return None
    return content if isinstance(content, dict) else {}


def _shapes(header: Mapping[str, Mapping[str, Any]]) -> dict[str, Shape]:
    return {name: tuple(map(int, one["shape"])) for name, one in header.items()}


def _unpickled(stream: BinaryIO) -> Any:
    """The content of a .pth file; None of a file of another kind."""
    if not zipfile.is_zipfile(stream):
        return None
    with zipfile.ZipFile(stream) as archive:
        names = [name for name in archive.namelist() if name.endswith("/data.pkl")]
        if not names or archive.getinfo(names[0]).file_size > _MOST_BYTES:
            return None
        with archive.open(names[0]) as pickled:
            return _PlainData(pickled).load()


class _StandIn:
    """Instead of whatever a file names."""

    def __init__(self, *_: Any, **__: Any) -> None:
        pass

    def __setstate__(self, _: Any) -> None:
        pass

    def __setitem__(self, _: Any, __: Any) -> None:
        pass

    def append(self, _: Any) -> None:
        pass

    def extend(self, _: Any) -> None:
        pass


class _Tensor(_StandIn):
    """Instead of a tensor, or of a parameter that is one: its shape."""

    def __init__(self, first: Any = None, _offset: Any = 0, shape: Any = (), *_: Any) -> None:
        self.shape: Shape = first.shape if isinstance(first, _Tensor) else tuple(map(int, shape))


_TENSORS = {("torch._utils", "_rebuild_tensor_v2"), ("torch._utils", "_rebuild_parameter")}
_KNOWN: Mapping[tuple[str, str], Any] = {
    ("collections", "OrderedDict"): OrderedDict,
    **dict.fromkeys(_TENSORS, _Tensor),
}


class _PlainData(pickle.Unpickler):
    def find_class(self, module: str, name: str) -> Any:
        return _KNOWN.get((module, name), _StandIn)

    def persistent_load(self, _: Any) -> Any:
        return _StandIn()
