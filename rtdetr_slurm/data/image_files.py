"""Whether the files that annotations name are there. Standard library only."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from unicodedata import normalize
from urllib.parse import unquote

from rtdetr_slurm.errors import RequestError


def missing_files(folder: Path, names: Sequence[str]) -> list[str]:
    """Those of `names` that are not below `folder`, in their order.

    Every folder is listed once: on a network file system that is far cheaper than to ask for each
    file.

    Raises:
        RequestError: a folder cannot be listed.
    """
    listed: dict[str, set[str]] = {}
    missing = []
    for name in names:
        parent, base = os.path.split(name)
        if parent not in listed:
            listed[parent] = set(_list(folder / parent))
        if base not in listed[parent]:
            missing.append(name)
    return missing


def similar_file(folder: Path, name: str) -> str | None:
    """A file below `folder` that `name` probably means: another way to write the same, the same
    without its folder, or another kind of image."""
    parent, base = os.path.split(_plain(name))
    for place in dict.fromkeys((parent, "")):
        found = sorted(_list(folder / place))
        for same in (_folded, _stem):
            for other in found:
                if same(other) == same(base):
                    return f"{place}/{other}" if place else other
    return None


def _list(folder: Path) -> list[str]:
    """Files and links in a folder; none where there is no such folder. A pipe is no file: whoever
    opened it would wait."""
    try:
        with os.scandir(folder) as entries:
            return [
                entry.name
                for entry in entries
                if entry.is_file(follow_symlinks=False) or entry.is_symlink()
            ]
    except (FileNotFoundError, NotADirectoryError):
        return []
    except OSError as error:
        raise RequestError(f"image folder {folder} cannot be listed: {error.strerror}") from None


def _plain(name: str) -> str:
    """A name as POSIX has it: no %20, and folders end with a slash."""
    return normalize("NFC", unquote(name).replace("\\", "/"))


def _folded(name: str) -> str:
    return _plain(name).casefold()


def _stem(name: str) -> str:
    return _folded(name).rpartition(".")[0] or _folded(name)
