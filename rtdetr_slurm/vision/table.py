"""The annotations of one or several COCO sources as a few arrays.

Arrays and not objects: data loading processes are given them in memory that they share with the
rank, where a million small Python objects would be copied into each of them.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rtdetr_slurm.data.classes import class_names
from rtdetr_slurm.data.coco import Source
from rtdetr_slurm.data.image_sizes import Size
from rtdetr_slurm.vision.mapped import MappedArrays


@dataclass(frozen=True)
class Table:
    """I images and their N boxes; an image is known by its position 0 .. I-1.

    Positions are unique over all sources, image ids need not be.

    Attributes:
        folders: image folder of each source.
        source: int64 [I], index into `folders`.
        image_ids: int64 [I], as the annotation file of the source has them.
        names: uint8, all file names behind each other, UTF-8.
        name_ends: int64 [I + 1], where they start and end in `names`.
        sizes: int64 [I, 2], width and height as annotated, 0 where not given.
        starts: int64 [I + 1], image i has the boxes starts[i] .. starts[i+1]-1.
        boxes: float64 [N, 4], x, y, width, height in pixels.
        labels: int64 [N], category ids.
        areas: float64 [N]. crowds: bool [N].
        classes: category id to name.
    """

    folders: tuple[str, ...]
    source: NDArray[np.int64]
    image_ids: NDArray[np.int64]
    names: NDArray[np.uint8]
    name_ends: NDArray[np.int64]
    sizes: NDArray[np.int64]
    starts: NDArray[np.int64]
    boxes: NDArray[np.float64]
    labels: NDArray[np.int64]
    areas: NDArray[np.float64]
    crowds: NDArray[np.bool_]
    classes: dict[int, str]

    def __len__(self) -> int:
        return len(self.source)

    def __reduce__(self) -> tuple[Any, ...]:
        """For another process: its arrays are these, and no copies."""
        return mapped_table, (self.mapped, self.others)

    @property
    def arrays(self) -> dict[str, NDArray[Any]]:
        """The fields that are arrays."""
        values = {f.name: getattr(self, f.name) for f in fields(self)}
        return {name: v for name, v in values.items() if isinstance(v, np.ndarray)}

    @property
    def others(self) -> dict[str, Any]:
        """The fields that are none."""
        return {"folders": self.folders, "classes": self.classes}

    @cached_property
    def mapped(self) -> MappedArrays:
        """All arrays, moved to memory that other processes map; they cannot be written any more."""
        mapped = MappedArrays.of(self.arrays)
        for name, array in mapped.arrays.items():
            object.__setattr__(self, name, array)  # it is not needed twice
        return mapped

    def path(self, image: int) -> Path:
        """The file of an image."""
        return Path(self.folders[self.source[image]], self.name(image))

    def name(self, image: int) -> str:
        """The file name of an image, below the folder of its source."""
        name = self.names[self.name_ends[image] : self.name_ends[image + 1]].tobytes()
        return name.decode(errors="surrogateescape")

    def stated_size(self, image: int) -> Size:
        """Width and height of an image as annotated, 0 where not given."""
        width, height = self.sizes[image].tolist()
        return width, height

    def describe(self, image: int) -> str:
        """An image as messages name it: its id and its file."""
        return f"{self.image_ids[image]} ({self.path(image)})"

    def rows(self, image: int) -> slice:
        """Where the boxes of an image are."""
        return slice(int(self.starts[image]), int(self.starts[image + 1]))

    def spread(self, count: int) -> Table:
        """At most `count` images, evenly from the first on, with their boxes."""
        chosen = min(count, len(self))
        images = np.arange(chosen) * len(self) // max(chosen, 1)
        boxes = [np.arange(self.starts[i], self.starts[i + 1]) for i in images]
        rows = np.concatenate([np.empty(0, np.int64), *boxes])
        names = [self.names[self.name_ends[i] : self.name_ends[i + 1]] for i in images]
        return replace(
            self,
            source=self.source[images],
            image_ids=self.image_ids[images],
            names=np.concatenate([self.names[:0], *names]),
            name_ends=np.cumsum([0, *map(len, names)]),
            sizes=self.sizes[images],
            starts=np.cumsum([0, *map(len, boxes)]),
            boxes=self.boxes[rows],
            labels=self.labels[rows],
            areas=self.areas[rows],
            crowds=self.crowds[rows],
        )


def open_table(sources: Sequence[Source], num_classes: int) -> Table:
    """The table of some sources, whose category ids are class indices.

    Raises:
        RequestError: an id is not below `num_classes`, or has different names in two sources.
    """
    return build_table(sources, class_names([s.annotations for s in sources], num_classes))


def build_table(sources: Sequence[Source], classes: dict[int, str]) -> Table:
    """Concatenate sources in the order given."""
    read = [source.annotations for source in sources]
    counts = [a.num_images for a in read]
    offsets = np.cumsum([0, *counts])
    image_of_box = np.concatenate(
        [_int64(a.image_index) + offset for a, offset in zip(read, offsets, strict=False)]
    )
    order = np.argsort(image_of_box, kind="stable")
    encoded = [name.encode(errors="surrogateescape") for a in read for name in a.file_names]

    def column(name: str) -> NDArray[Any]:
        return np.concatenate([np.asarray(getattr(a, name)) for a in read])

    return Table(
        folders=tuple(str(source.folder) for source in sources),
        source=np.repeat(np.arange(len(sources)), counts),
        image_ids=_int64(column("image_ids")),
        names=np.frombuffer(bytearray().join(encoded), np.uint8),
        name_ends=np.cumsum([0, *map(len, encoded)]),
        sizes=_int64(np.stack([column("widths"), column("heights")], axis=1)),
        starts=np.searchsorted(image_of_box[order], np.arange(offsets[-1] + 1)),
        boxes=column("boxes").reshape(-1, 4)[order],
        labels=_int64(column("category_ids")[order]),
        areas=column("areas")[order],
        crowds=column("crowds")[order].astype(np.bool_),
        classes=classes,
    )


def mapped_table(mapped: MappedArrays, others: dict[str, Any]) -> Table:
    """The table of arrays that are mapped, and of what `others` says of a table."""
    arrays: dict[str, Any] = mapped.arrays
    table = Table(**arrays, **others)
    table.__dict__["mapped"] = mapped
    return table


def _int64(values: object) -> NDArray[np.int64]:
    return np.asarray(values, dtype=np.int64)
