"""Which files of an archive an annotation file names. Standard library only."""

from __future__ import annotations

import posixpath
from collections.abc import Callable, Iterator
from pathlib import Path

from rtdetr_slurm.data.json_stream import NotJson, stream_object
from rtdetr_slurm.errors import RequestError, explained


def image_names(path: Path) -> frozenset[str]:
    """The names of images in a COCO file, without `./`; entry by entry, for it may be large.

    Raises:
        RequestError: it cannot be read, or names none.
    """
    try:
        names = frozenset(_names(path))
    except (NotJson, UnicodeDecodeError) as error:
        raise RequestError(f"annotation file {path}: {error}") from error
    except OSError as error:
        raise explained(error) from error
    if not names:
        raise RequestError(f"annotation file {path} names no images ('images' with 'file_name')")
    return names


def _names(path: Path) -> Iterator[str]:
    for key, value in stream_object(path):
        if key == "images" and isinstance(value, Iterator):
            for image in value:
                name = image.get("file_name") if isinstance(image, dict) else None
                if isinstance(name, str) and name:
                    yield posixpath.normpath(name)


def wanting(names: frozenset[str] | None, stem: str) -> Callable[[str], bool]:
    """Which names in an archive are meant by names in annotations: these very ones, those below
    the archive's own top folder, and those that begin with the archive's name where it has none.

    What macOS adds to archives is meant by nothing.
    """

    def wanted(name: str) -> bool:
        parts = name.split("/")
        if parts[0] == "__MACOSX" or parts[-1].startswith("._"):
            return False
        if names is None:
            return True
        return name in names or "/".join(parts[1:]) in names or f"{stem}/{name}" in names

    return wanted
