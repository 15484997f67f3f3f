"""Augmented training samples."""

from __future__ import annotations

from dataclasses import replace

import torch
from torch.utils.data import Dataset

from rtdetr_slurm.data.pixels import BadImage
from rtdetr_slurm.engine.datasets.seeds import mix_seed
from rtdetr_slurm.engine.datasets.transforms import Augment
from rtdetr_slurm.vision.samples import Sample, open_annotated, training_boxes, undecodable
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
            sample = self._augmented(epoch, image)
            if not isinstance(sample, BadImage):
                return replace(sample, bad=tuple(bad))
            bad.append(sample)
        return undecodable(first, tuple(bad))

    def _augmented(self, epoch: int, image: int) -> Sample | BadImage:
        file = open_annotated(self.table, image)
        if isinstance(file, BadImage):
            return file
        width, height = file.size
        boxes, labels = training_boxes(self.table, image, height, width)
        new = self.augment(file, boxes, mix_seed(self.seed, epoch, image))
        if isinstance(new, BadImage):
            return new
        kept = torch.from_numpy(labels[new.kept])
        return Sample(image, new.pixels, kept, new.boxes, file.size, colours=new.colours)
