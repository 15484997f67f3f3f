"""Reading weight files: formats and containers, not names (names: keymap.py)."""

from __future__ import annotations

import pickle
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import safetensors.torch
import torch
from torch import Tensor

from rtdetr_slurm.cipher import decrypted
from rtdetr_slurm.errors import RequestError
from rtdetr_slurm.runs.checkpoint_record import (
    CONTAINERS,
    SAFETENSORS,
    WeightsRecord,
    find_tensors,
    only_to_use,
    read_weights_record,
)

_FOREIGN = re.compile(r"GLOBAL ([\w.]+)")
"""How PyTorch names an object that it does not load."""
_TAO_ENCRYPTED = "state_dict_encrypted"
"""What TAO marks a .pth file with whose state_dict is no longer one."""


@dataclass(frozen=True)
class LoadReport:
    """What `load_weights` did."""

    path: Path
    layout: str
    """Whose tensor names the file uses."""
    loaded: int
    """Number of tensors copied into the model."""
    skipped: tuple[str, ...]
    """Tensors left as they were or not used, each with the reason."""

    def __str__(self) -> str:
        text = f"loaded {self.loaded} tensors from {self.path} ({self.layout} names)"
        return "\n  ".join([text, *(f"skipped {line}" for line in self.skipped)])


def weights_record(path: Path, key: str | None = None) -> WeightsRecord:
    """`read_weights_record` of a file that may be encrypted.

    Raises:
        RequestError: as `decrypted`.
        FileNotFoundError, BadRecord: as `read_weights_record`.
    """
    with decrypted(path, key) as source:
        return read_weights_record(path, None if isinstance(source, Path) else source)


def read_state_dict(path: Path, key: str | None = None) -> dict[str, Tensor]:
    """Read name -> tensor from a .safetensors file or a PyTorch checkpoint, on the CPU.

    Args:
        key: of a checkpoint that is encrypted.

    Raises:
        RequestError: the file is missing, unreadable, encrypted and not with this key, or holds no
            tensors. PyTorch files are read
            with weights_only: one that holds other objects is refused, never executed.
    """
    if not path.is_file():
        raise RequestError(f"{path}: no such weight file")
    try:
        if path.suffix == SAFETENSORS:
            return dict(safetensors.torch.load_file(path))
        with decrypted(path, key) as source:
            loaded = torch.load(source, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        found = _FOREIGN.search(str(error))
        what = f" ({found[1]})" if found else ""
        raise RequestError(
            f"{path}: not a file of plain weights. It is no PyTorch file, or holds Python objects"
            f"{what}, which are never executed here; where you trust the file, save its state_dict "
            "alone"
        ) from error
    except (MemoryError, RequestError):
        raise
    except Exception as error:  # PyTorch raises of all kinds on what is not its own
        raise RequestError(
            f"{path}: cannot be read as weights, the file is damaged or of another kind "
            f"({_first_line(error)})"
        ) from error
    if isinstance(loaded, Mapping) and loaded.get(_TAO_ENCRYPTED):
        raise RequestError(
            f"{path}: TAO has encrypted the weights in it, in a way that cannot be read here, "
            "whatever the key; allowed: a checkpoint that TAO has written without a key"
        )
    if isinstance(loaded, Mapping) and "quantization" in loaded:
        raise RequestError(only_to_use(path))
    if tensors := find_tensors(loaded, Tensor):
        return tensors
    raise RequestError(
        f"{path}: no tensors found; looked for a state dict at the top level and in "
        + ", ".join(".".join(keys) for keys in CONTAINERS if keys)
    )


def _first_line(error: Exception) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0]
