"""Image files of a data set: found by whatever a tool calls them, and their sizes."""

from __future__ import annotations

import os
import re
from collections import defaultdict
from collections.abc import Iterable, Iterator
from itertools import takewhile
from pathlib import Path, PurePosixPath
from urllib.parse import unquote

from rtdetr_slurm.data.image_sizes import Size, read_header
from rtdetr_slurm.data.image_sources import IMAGE_SUFFIXES
from rtdetr_slurm.data.layout import files_below, split_name
from rtdetr_slurm.data.pixels import BadImage, open_image_file

_UPLOADED = re.compile(r"^[0-9a-f]{6,}-")
"""What Label Studio puts before the name of a file that was uploaded."""


def images_below(folder: Path) -> Iterator[Path]:
    return files_below(folder, IMAGE_SUFFIXES)


class ImageFiles:
    """The images below a folder, to be found by what another machine has called them."""

    def __init__(self, root: Path) -> None:
        self._named: dict[str, list[Path]] = defaultdict(list)
        self._stems: dict[str, list[Path]] = defaultdict(list)
        for path in images_below(root):
            self._named[path.name.casefold()].append(path)
            self._stems[path.stem.casefold()].append(path)

    def find(self, name: str, beside: Path, split: str = "") -> list[Path]:
        """The files that a name may mean: one, none, or several that it fits equally well.

        Args:
            name: a path or URL of whatever machine; what it ends with counts.
            beside: the folder of the file that has the name.
            split: of the file; of several images in folders for splits it is the one in its own.
        """
        direct = beside / name
        if _is_image(direct):
            return [direct]
        plain = name.replace("\\", "/")
        for spelt in dict.fromkeys((plain, unquote(plain.rpartition("?d=")[2]))):
            base = PurePosixPath(spelt).name
            for same in dict.fromkeys((base, _UPLOADED.sub("", base))):
                key = same.casefold()
                found = self._named.get(key) or self._stems.get(key)
                found = found or self._stems.get(PurePosixPath(key).stem)
                if found:
                    return _closest(found, spelt, beside, split)
        return []


def _is_image(path: Path) -> bool:
    try:
        return path.name.lower().endswith(IMAGE_SUFFIXES) and path.is_file()
    except (OSError, ValueError):  # a name that no file can have
        return False


def _closest(found: Iterable[Path], name: str, beside: Path, split: str) -> list[Path]:
    """Those that share the most folders with the name, from its end, then with `beside`, and that
    are in a folder of the split."""
    parts = PurePosixPath(name.casefold()).parts[:-1][::-1]

    def rank(path: Path) -> tuple[int, int, bool]:
        folders = [part.casefold() for part in path.parts[:-1]][::-1]
        pairs = zip(folders, parts, strict=False)
        shared = sum(1 for _ in takewhile(lambda pair: pair[0] == pair[1], pairs))
        near = len(os.path.commonpath([path, beside]))
        return shared, near, bool(split) and any(split_name(part) == split for part in folders)

    ranked = [(rank(path), path) for path in found]
    best = max(each for each, _ in ranked)
    return [path for each, path in ranked if each == best]


def upright_size(path: Path) -> Size | None:
    """Width and height of an image as it is meant to be seen; None: it cannot be read.

    Raises:
        OSError: there is no such file, or it is not ours to read.
    """
    sizes = read_header(path).sizes
    if len(sizes) == 1:
        return sizes[0]
    opened = open_image_file(path)
    if isinstance(opened, BadImage):
        return None
    opened.close()
    return opened.size
