"""Augmented training samples."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import partial
from typing import TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch.utils.data import Dataset

from rtdetr_slurm.data.pixels import BadImage, ImageFile
from rtdetr_slurm.engine.datasets.mosaic import MOSAIC_PROBABILITY, Tile, draw_mosaic
from rtdetr_slurm.engine.datasets.order import draw_images
from rtdetr_slurm.engine.datasets.seeds import mix_seed
from rtdetr_slurm.engine.datasets.transforms import Augment, Augmented, Piece
from rtdetr_slurm.engine.recipe import Recipe
from rtdetr_slurm.vision.samples import Sample, open_annotated, training_boxes, undecodable
from rtdetr_slurm.vision.table import Table

_Made = TypeVar("_Made")
_MOSAIC = 1
"""What its draws depend on beside those of the image."""


class TrainingSet(Dataset[Sample]):
    """Augmented samples; item (epoch, image) is a function of these two and the seed alone. The
    image is its position in the table, `len(table)` further each time that it comes again.

    An image that cannot be decoded is replaced by the next one that can; the sample says so.

    Args:
        augment: in the epochs that the recipe augments.
        plain: in the others.
        weights: float64 [I], how often each image is drawn for a mosaic; None: all alike.
    """

    def __init__(
        self,
        table: Table,
        augment: Augment,
        seed: int,
        *,
        replace_bad: bool,
        recipe: Recipe | None = None,
        plain: Augment | None = None,
        weights: NDArray[np.float64] | None = None,
    ) -> None:
        self.table, self.augment, self.seed = table, augment, seed
        self.recipe, self.plain, self.weights = recipe or Recipe(), plain or augment, weights
        self.attempts = len(table) if replace_bad else 1

    def __len__(self) -> int:
        return len(self.table)

    def __getitem__(self, item: tuple[int, int]) -> Sample:
        epoch, first = item
        bad: list[BadImage] = []
        sample = self._made(epoch, first, bad)
        if sample is None:
            return undecodable(first % len(self.table), tuple(bad))
        return replace(sample, bad=tuple(bad))

    def _made(self, epoch: int, first: int, bad: list[BadImage]) -> Sample | None:
        if epoch in self.recipe.dense:
            draw = np.random.default_rng(mix_seed(self.seed, epoch, first, _MOSAIC))
            if draw.random() < MOSAIC_PROBABILITY:
                return self._mosaic(draw, first, bad)
        return self._first_good(first, partial(self._augmented, epoch), bad)

    def _first_good(
        self, first: int, make: Callable[[int], _Made | BadImage], bad: list[BadImage]
    ) -> _Made | None:
        """What is made of the first image from `first` on that can be decoded, or None; those that
        cannot are put into `bad`."""
        for attempt in range(self.attempts):
            made = make(first + attempt)
            if not isinstance(made, BadImage):
                return made
            bad.append(made)
        return None

    def _augmented(self, epoch: int, image: int) -> Sample | BadImage:
        opened = self._open(image)
        if isinstance(opened, BadImage):
            return opened
        file, boxes, labels = opened
        augment = self.augment if self.recipe.augments(epoch) else self.plain
        new = augment(file, boxes, mix_seed(self.seed, epoch, image))
        return new if isinstance(new, BadImage) else self._sample(image, file, new, labels)

    def _mosaic(self, draw: np.random.Generator, first: int, bad: list[BadImage]) -> Sample | None:
        """An image and three that are drawn; None: one of them cannot be decoded."""
        tiles = draw_mosaic(draw, self.augment.size)
        images = [first, *draw_images(draw, len(self.table), self.weights, len(tiles) - 1)]
        found = []
        for image, tile in zip(images, tiles, strict=True):
            piece = self._first_good(image, partial(self._piece, tile), bad)
            if piece is None:
                return None
            found.append(piece)
        new = self.augment.mosaic(draw, [piece for piece, _, _ in found])
        labels = np.concatenate([labels for _, _, labels in found])
        return self._sample(first, found[0][1], new, labels)

    def _piece(
        self, tile: Tile, image: int
    ) -> tuple[Piece, ImageFile, NDArray[np.int64]] | BadImage:
        opened = self._open(image)
        if isinstance(opened, BadImage):
            return opened
        file, boxes, labels = opened
        piece = self.augment.piece(file, boxes, tile)
        return piece if isinstance(piece, BadImage) else (piece, file, labels)

    def _open(
        self, image: int
    ) -> tuple[ImageFile, NDArray[np.float32], NDArray[np.int64]] | BadImage:
        """The file of an image, and what is learned from it."""
        image %= len(self.table)
        file = open_annotated(self.table, image)
        if isinstance(file, BadImage):
            return file
        width, height = file.size
        return file, *training_boxes(self.table, image, height, width)

    def _sample(
        self, image: int, file: ImageFile, new: Augmented, labels: NDArray[np.int64]
    ) -> Sample:
        kept = torch.from_numpy(labels[new.kept])
        place = image % len(self.table)
        return Sample(place, new.pixels, kept, new.boxes, file.size, colours=new.colours)
