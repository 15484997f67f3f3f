"""Images without annotations, as a detector is fed them: from folders, lists and archives."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, TypeAlias

import torch
from torch.utils.data import Dataset

from rtdetr_slurm.data.archives import ERRORS, MAX_FILE_BYTES, Archive, is_archive, open_archive
from rtdetr_slurm.data.pixels import BadImage, open_image_file
from rtdetr_slurm.errors import RequestError
from rtdetr_slurm.records import open_file
from rtdetr_slurm.vision.preprocess import Resize
from rtdetr_slurm.vision.samples import Sample, undecodable
from rtdetr_slurm.vision.scoring import EvaluationData, resize_of
from rtdetr_slurm.vision.table import Table

if TYPE_CHECKING:
    from rtdetr_slurm.spec import ExperimentConfig


def image_data(experiment: ExperimentConfig, table: Table, size: tuple[int, int]) -> EvaluationData:
    """The images of `data.image_sources.find_images`, looked at as the inference section says.

    Args:
        size: (height, width) that they are resized to.
    """
    return EvaluationData(
        table,
        resize_of(experiment, size),
        experiment.model.num_select,
        conf_threshold=experiment.inference.conf_threshold,
    )


_Opened: TypeAlias = dict[str, Archive | None]
"""The archive at a place; None for a folder."""
Content: TypeAlias = bytes | BadImage
"""Of an image's file, or why there is none."""


class ImageSet(Dataset[Sample]):
    """Samples without boxes, each with its file's content. One that cannot be decoded gives black
    pixels and says so."""

    def __init__(self, table: Table, resize: Resize) -> None:
        self.table, self.resize = table, resize
        self._archives: _Opened = {}  # each process opens its own

    def __len__(self) -> int:
        return len(self.table)

    def __getitem__(self, item: int | tuple[int, Content]) -> Sample:
        image, content = item if isinstance(item, tuple) else (item, None)
        path = self.table.path(image)
        if content is None:
            content = self._read(image, self._archives)
        if isinstance(content, BadImage):
            return undecodable(image, (content,), self.resize.size)
        opened = open_image_file(path, content)
        decoded = opened if isinstance(opened, BadImage) else opened.decode()
        if isinstance(decoded, BadImage):
            return undecodable(image, (decoded,), self.resize.size)
        none = torch.empty(0, 4)
        pixels = self.resize.to_pixels(decoded)
        return Sample(image, pixels, none[:, 0].long(), none, decoded.size, file=content)

    def ahead(self, image: int, opened: _Opened) -> int | tuple[int, Content]:
        """An item for this set: an image of an archive that is read from its beginning alone with
        its content, so that one process reads for all."""
        try:
            archive = self._archive(image, opened)
        except ERRORS:
            return image  # whoever reads it will say what is wrong
        sequential = archive is not None and archive.sequential
        return (image, self._read(image, opened)) if sequential else image

    def _archive(self, image: int, opened: _Opened) -> Archive | None:
        """The archive that an image is in, opened once."""
        place = self.table.folders[self.table.source[image]]
        if place not in opened:
            packed = is_archive(Path(place)) and Path(place).is_file()
            opened[place] = open_archive(Path(place)) if packed else None
        return opened[place]

    def _read(self, image: int, opened: _Opened) -> Content:
        path = self.table.path(image)
        try:
            if (archive := self._archive(image, opened)) is not None:
                return archive.read(self.table.name(image))
            with open_file(path) as stream:
                content = stream.read(MAX_FILE_BYTES + 1)
        except FileNotFoundError:
            return BadImage(str(path), "does not exist")
        except (RequestError, *ERRORS) as error:
            return BadImage(str(path), f"cannot be read: {error or type(error).__name__}")
        if len(content) > MAX_FILE_BYTES:
            return BadImage(str(path), f"has more than {MAX_FILE_BYTES} bytes, which is too much")
        return content


@dataclass(frozen=True)
class ReadAhead:
    """Batches of an ImageSet's items, for the loader of the set."""

    data: ImageSet
    batches: Sequence[Sequence[int]]

    def __iter__(self) -> Iterator[list[int | tuple[int, Content]]]:
        opened: _Opened = {}
        for batch in self.batches:
            yield [self.data.ahead(image, opened) for image in batch]
