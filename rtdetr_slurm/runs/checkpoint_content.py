"""All that is in a checkpoint, to compare it with another one's, read without torch: nothing in the
file runs. Standard library only.
"""

from __future__ import annotations

import hashlib
import pickle
import zipfile
from collections import OrderedDict
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from rtdetr_slurm.errors import RequestError

_PIECE = 1 << 20


@dataclass(frozen=True)
class Storage:
    """The memory of a tensor.

    Attributes:
        kind: its class in torch, which says the type of the elements.
        sha256: of its bytes.
    """

    kind: str
    size: int
    sha256: str


@dataclass
class Made:
    """What a call of torch has made, a tensor most often: the call, not its result.

    Attributes:
        state: that it was given afterwards.
    """

    name: str
    arguments: tuple[Any, ...]
    state: Any = None

    def __setstate__(self, state: Any) -> None:
        self.state = state


@dataclass(frozen=True)
class _Named:
    """A class or a function that a file names."""

    name: str

    def __call__(self, *arguments: Any) -> Made:
        return Made(self.name, arguments)


@dataclass
class Comparison:
    """What there is to say about two checkpoints.

    Attributes:
        differences: what is not equal, by where it is; empty: nothing.
        tensors, tensor_bytes: that were compared; of a tensor type, shape, layout and every byte.
        values: that were compared besides.
    """

    differences: list[str] = field(default_factory=list)
    tensors: int = 0
    tensor_bytes: int = 0
    values: int = 0

    @property
    def same(self) -> bool:
        return not self.differences


def compare_checkpoints(first: Path, second: Path, *, but: Mapping[str, str]) -> Comparison:
    """Compare all that two checkpoints hold.

    Args:
        but: text that the second one's values may begin with, to what the first one's have there:
            the folders that each is of.

    Raises:
        RequestError: one of them cannot be read, or is no checkpoint.
    """
    ours, theirs = (dict(_leaves(read_content(path))) for path in (first, second))
    found = Comparison()
    for name in ours.keys() | theirs.keys():
        if name not in ours or name not in theirs:
            found.differences.append(f"{name} is in the {'second' if name in theirs else 'first'}")
        elif not _equal(ours[name], _renamed(theirs[name], but)):
            found.differences.append(name)
        if isinstance(tensor := ours.get(name), Made):
            found.tensors += 1
            found.tensor_bytes += sum(one.size for one in _storages(tensor))
        else:
            found.values += 1
    found.differences.sort()
    return found


def read_content(path: Path) -> Any:
    """What is in a checkpoint, its tensors as the calls that make them.

    Raises:
        RequestError: it cannot be read, or is no checkpoint of this engine.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            [pickled] = [name for name in archive.namelist() if name.endswith("/data.pkl")]
            with archive.open(pickled) as stream:
                return _Reader(stream, archive, pickled.removesuffix("data.pkl")).load()
    except Exception as error:  # pickle and zipfile raise of all kinds on what is not theirs
        raise RequestError(f"{path} cannot be read as a checkpoint: {error}") from error


class _Reader(pickle.Unpickler):
    def __init__(self, stream: Any, archive: zipfile.ZipFile, folder: str) -> None:
        super().__init__(stream)
        self._archive, self._folder = archive, folder
        self._storages: dict[str, Storage] = {}

    def find_class(self, module: str, name: str) -> Any:
        return OrderedDict if name == "OrderedDict" else _Named(f"{module}.{name}")

    def persistent_load(self, pid: Any) -> Storage:
        _, kind, key, *_ = pid
        if key not in self._storages:
            self._storages[key] = self._digest(f"{self._folder}data/{key}", kind)
        return self._storages[key]

    def _digest(self, name: str, kind: _Named) -> Storage:
        digest = hashlib.sha256()
        with self._archive.open(name) as stream:
            while piece := stream.read(_PIECE):
                digest.update(piece)
        return Storage(kind.name, self._archive.getinfo(name).file_size, digest.hexdigest())


def _leaves(content: Any, at: tuple[str, ...] = ()) -> Iterator[tuple[str, Any]]:
    """Whatever is no collection, by its dotted name, and every empty one."""
    inside = content
    if isinstance(content, list | tuple):
        inside = dict(enumerate(content))
    if isinstance(inside, Mapping) and inside:
        for key, value in inside.items():
            yield from _leaves(value, (*at, str(key)))
    else:
        yield ".".join(at), content


def _renamed(value: Any, names: Mapping[str, str]) -> Any:
    if isinstance(value, str):
        for now, then in names.items():
            if value == now or value.startswith(f"{now}/"):
                return then + value[len(now) :]
    return value


def _equal(one: Any, other: Any) -> bool:
    """1, 1.0 and True are not the same; a NaN is the same as another."""
    return type(one) is type(other) and (one == other or (one != one and other != other))


def _storages(tensor: Made) -> Iterator[Storage]:
    return (one for one in tensor.arguments if isinstance(one, Storage))
