"""What a checkpoint of this engine says of itself, read without torch. Standard library only.

A .pth file is a zip archive with one pickle in it, which refers to the tensors' data beside it.
Here everything but plain data becomes a stand-in that does nothing, so that nothing in the file
runs.
"""

from __future__ import annotations

import pickle
import zipfile
from collections import OrderedDict
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from rtdetr_slurm.records import BadRecord, open_file

MODEL_NAME = "rtdetr"
"""What a checkpoint of this engine has as `tao_model`."""
_MOST_BYTES = 64 * 1024 * 1024


class _StandIn:
    """Instead of a tensor, or whatever else a file names."""

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


class _PlainData(pickle.Unpickler):
    def find_class(self, module: str, name: str) -> Any:
        return OrderedDict if (module, name) == ("collections", "OrderedDict") else _StandIn

    def persistent_load(self, _: Any) -> Any:
        return _StandIn()


def stored_spec(path: Path) -> Mapping[str, Any] | None:
    """The resolved spec that a checkpoint was trained with; None where a file holds weights alone,
    or is not of this engine.

    Raises:
        BadRecord: the file cannot be read.
    """
    try:
        with open_file(path) as stream:
            if not zipfile.is_zipfile(stream):
                return None
            with zipfile.ZipFile(stream) as archive:
                names = [name for name in archive.namelist() if name.endswith("/data.pkl")]
                if not names or archive.getinfo(names[0]).file_size > _MOST_BYTES:
                    return None
                with archive.open(names[0]) as pickled:
                    content = _PlainData(pickled).load()
    except (OSError, BadRecord):
        raise
    except Exception as error:  # pickle and zipfile raise of all kinds on what is not theirs
        raise BadRecord(path, f"cannot be read as a checkpoint: {error}") from error
    if not isinstance(content, dict) or content.get("tao_model") != MODEL_NAME:
        return None
    spec = content.get("spec")
    return spec if isinstance(spec, dict) else None
