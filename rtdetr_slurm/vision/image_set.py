"""Images without annotations, as a detector is fed them: from folders, lists and archives."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from torch.utils.data import Dataset

from rtdetr_slurm.data.archives import ERRORS, MAX_FILE_BYTES, Archive, is_archive, open_archive
from rtdetr_slurm.data.coco import Source
from rtdetr_slurm.errors import RequestError
from rtdetr_slurm.records import open_file
from rtdetr_slurm.vision.images import BadImage, load_image
from rtdetr_slurm.vision.preprocess import to_pixels
from rtdetr_slurm.vision.samples import Sample, undecodable
from rtdetr_slurm.vision.scoring import EvaluationData
from rtdetr_slurm.vision.table import Table, build_table

if TYPE_CHECKING:
    from rtdetr_slurm.spec import ExperimentConfig


def open_image_data(
    experiment: ExperimentConfig, sources: Sequence[Source], classes: Mapping[int, str]
) -> EvaluationData:
    """The images of `data.image_sources.find_images`, looked at as the inference section says."""
    cfg = experiment.inference
    height, width = experiment.dataset.augmentation.eval_spatial_size
    return EvaluationData(
        build_table(sources, dict(classes)),
        (cfg.input_height or height, cfg.input_width or width),
        experiment.model.num_select,
        conf_threshold=cfg.conf_threshold,
    )


class ImageSet(Dataset[Sample]):
    """Samples without boxes, each with its file's content. One that cannot be decoded gives black
    pixels and says so."""

    def __init__(self, table: Table, size: tuple[int, int]) -> None:
        self.table, self.size = table, size
        self._archives: dict[str, Archive] = {}  # each process opens its own

    def __len__(self) -> int:
        return len(self.table)

    def __getitem__(self, image: int) -> Sample:
        path = self.table.path(image)
        content = self._read(image)
        if isinstance(content, BadImage):
            return undecodable(image, (content,), self.size)
        loaded = load_image(path, content)
        if isinstance(loaded, BadImage):
            return undecodable(image, (loaded,), self.size)
        height, width = loaded.shape[:2]
        none = torch.empty(0, 4)
        pixels = to_pixels(loaded, self.size)
        return Sample(image, pixels, none[:, 0].long(), none, (width, height), file=content)

    def _read(self, image: int) -> bytes | BadImage:
        path, name = self.table.path(image), self.table.name(image)
        place = self.table.folders[self.table.source[image]]
        try:
            if is_archive(Path(place)) and Path(place).is_file():
                if place not in self._archives:
                    self._archives[place] = open_archive(Path(place))
                return self._archives[place].read(name)
            with open_file(path) as stream:
                content = stream.read(MAX_FILE_BYTES + 1)
        except FileNotFoundError:
            return BadImage(str(path), "does not exist")
        except (RequestError, *ERRORS) as error:
            return BadImage(str(path), f"cannot be read: {error or type(error).__name__}")
        if len(content) > MAX_FILE_BYTES:
            return BadImage(str(path), f"has more than {MAX_FILE_BYTES} bytes, which is too much")
        return content
