"""The two map-style data sets: augmented training samples and plain evaluation samples."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import Dataset

from rtdetr_slurm.engine.datasets.images import BadImage, load_image
from rtdetr_slurm.engine.datasets.table import Table
from rtdetr_slurm.engine.datasets.transforms import MIN_BOX_SIDE, Augment, normalise_boxes
from rtdetr_slurm.engine.preprocess import resize


@dataclass(frozen=True)
class Sample:
    """One image with its boxes.

    Attributes:
        image: position in the table.
        pixels: uint8 [3, height, width], at the network's input size.
        labels: int64 [T]. boxes: float32 [T, 4], cxcywh in 0..1.
        size: original width and height in pixels.
        bad: files that could not be decoded on the way to this sample.
    """

    image: int
    pixels: Tensor
    labels: Tensor
    boxes: Tensor
    size: tuple[int, int]
    bad: tuple[BadImage, ...] = ()


def training_boxes(
    table: Table, image: int, height: int, width: int
) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
    """What training learns from an image: no crowd regions, and boxes clipped to the image.

    Returns:
        Corners in pixels, float32 [T, 4], and labels [T]; boxes of less than a pixel are left out.
    """
    rows = table.rows(image)
    keep = ~table.crowds[rows]
    boxes = table.boxes[rows][keep]
    corners = np.concatenate([boxes[:, :2], boxes[:, :2] + boxes[:, 2:]], axis=1)
    corners = corners.clip(0, [width, height, width, height])
    large = ((corners[:, 2:] - corners[:, :2]) >= MIN_BOX_SIDE).all(axis=1)
    return corners[large].astype(np.float32), table.labels[rows][keep][large]


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
            loaded = load_image(self.table.path(image))
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


class EvaluationSet(Dataset[Sample]):
    """Plain samples: resized, nothing random. An undecodable image gives black pixels and says so.

    Boxes and labels are those that training would learn from; scoring takes its ground truth from
    the table.
    """

    def __init__(self, table: Table, size: tuple[int, int]) -> None:
        self.table, self.size = table, size

    def __len__(self) -> int:
        return len(self.table)

    def __getitem__(self, image: int) -> Sample:
        loaded = load_image(self.table.path(image))
        if isinstance(loaded, BadImage):
            return undecodable(image, (loaded,), self.size)
        height, width = loaded.shape[:2]
        corners, labels = training_boxes(self.table, image, height, width)
        pixels = torch.from_numpy(resize(loaded, self.size).copy()).permute(2, 0, 1)
        boxes = normalise_boxes(torch.from_numpy(corners), height, width)
        return Sample(image, pixels, torch.from_numpy(labels), boxes, (width, height))


def undecodable(image: int, bad: tuple[BadImage, ...], size: tuple[int, int] = (0, 0)) -> Sample:
    """The place holder for an image without pixels."""
    none = torch.empty(0, 4)
    pixels = torch.zeros(3, *size, dtype=torch.uint8)
    return Sample(image, pixels, none[:, 0].long(), none, (1, 1), bad)


def mix_seed(*parts: int) -> int:
    """One well-mixed 64-bit seed from several numbers, the same on every machine."""
    low, high = np.random.SeedSequence(parts).generate_state(2)
    return int(high) << 32 | int(low)
