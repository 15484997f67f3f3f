"""Augmented training samples."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from torch.utils.data import Dataset

from rtdetr_slurm.engine.datasets.seeds import mix_seed
from rtdetr_slurm.engine.datasets.transforms import Augment
from rtdetr_slurm.vision.images import BadImage
from rtdetr_slurm.vision.samples import Sample, open_image, training_boxes, undecodable
from rtdetr_slurm.vision.table import Table


class TrainingSet(Dataset[Sample]):
    """Augmented samples; item (epoch, image) is a function of these two and the seed alone.

    An image that cannot be decoded is replaced by the next one that can; the sample says so.
    """

    def __init__(self, table: Table, augment: Augment, seed: int, *, replace_bad: bool) -> None:
        self.table, self.augment, self.seed = table, augment, seed
        self.attempts = len(table) if replace_bad else 1

    def __len__(self) -> int:
        return len(self.table)

    def __getitem__(self, item: tuple[int, int]) -> Sample:
        epoch, first = item
        bad: list[BadImage] = []
        for attempt in range(self.attempts):
            image = (first + attempt) % len(self.table)
            loaded = open_image(self.table, image)
            if not isinstance(loaded, BadImage):
                return self._augmented(epoch, image, loaded, tuple(bad))
            bad.append(loaded)
        return undecodable(first, tuple(bad))

    def _augmented(
        self, epoch: int, image: int, loaded: NDArray[np.uint8], bad: tuple[BadImage, ...]
    ) -> Sample:
        height, width = loaded.shape[:2]
        boxes, labels = training_boxes(self.table, image, height, width)
        pixels, normalised, kept = self.augment(
            torch.from_numpy(loaded).permute(2, 0, 1),
            torch.from_numpy(boxes),
            torch.from_numpy(labels),
            mix_seed(self.seed, epoch, image),
        )
        return Sample(image, pixels, kept, normalised, (width, height), bad)
