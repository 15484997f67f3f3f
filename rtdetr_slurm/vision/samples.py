"""From a table to what a detector is fed: samples of one image, batches of several."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import TypedDict

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor
from torch.utils.data import Dataset

from rtdetr_slurm.data.boxes import training_corners
from rtdetr_slurm.data.image_sizes import size_mismatch
from rtdetr_slurm.data.pixels import BadImage, ImageFile, open_image_file
from rtdetr_slurm.vision.boxes import normalise_boxes
from rtdetr_slurm.vision.preprocess import Resize
from rtdetr_slurm.vision.table import Table


class Target(TypedDict):
    """Ground truth of one image, on the model's device."""

    labels: Tensor
    """int64 [T], class indices."""
    boxes: Tensor
    """float32 [T, 4], cxcywh in 0..1."""


NOTHING = torch.empty(0)


@dataclass(frozen=True)
class Sample:
    """One image with its boxes.

    Attributes:
        image: position in the table.
        pixels: uint8 [3, height, width], at the network's input size.
        labels: int64 [T]. boxes: float32 [T, 4], cxcywh in 0..1.
        size: original width and height in pixels.
        bad: files that could not be decoded on the way to this sample.
        colours: float32 [K], what is still to be done to its colours, on the device
            (`engine.datasets.colours`); empty: nothing.
        file: content of the image's file, where it is wanted further on.
    """

    image: int
    pixels: Tensor
    labels: Tensor
    boxes: Tensor
    size: tuple[int, int]
    bad: tuple[BadImage, ...] = ()
    colours: Tensor = NOTHING
    file: bytes = b""


@dataclass(frozen=True)
class Batch:
    """B samples. Boxes and labels of all images are packed behind each other.

    Attributes:
        images: list of B positions in the table.
        pixels: uint8 [B, 3, height, width].
        labels: int64 [sum T]. boxes: float32 [sum T, 4], cxcywh in 0..1.
        counts: T of each image.
        sizes: float32 [B, 2], original width and height.
        colours: float32 [B, K], what is still to be done to their colours, or [B, 0].
        bad: files that could not be decoded.
        files: content of each image's file, where it is wanted further on, else empty.
    """

    images: list[int]
    pixels: Tensor
    labels: Tensor
    boxes: Tensor
    counts: list[int]
    sizes: Tensor
    colours: Tensor = NOTHING
    bad: tuple[BadImage, ...] = ()
    files: tuple[bytes, ...] = ()

    @property
    def num_boxes(self) -> int:
        return sum(self.counts)

    def to(self, device: torch.device) -> Batch:
        """The batch on `device`; the copies need not have finished when this returns."""
        return self._moved(lambda tensor: tensor.to(device, non_blocking=True))

    def pin_memory(self) -> Batch:
        """Called by the loader."""
        return self._moved(Tensor.pin_memory)

    def _moved(self, move: Callable[[Tensor], Tensor]) -> Batch:
        return replace(
            self,
            pixels=move(self.pixels),
            labels=move(self.labels),
            boxes=move(self.boxes),
            sizes=move(self.sizes),
            colours=move(self.colours),
        )

    def targets(self) -> list[Target]:
        """Ground truth per image, as the model and the criterion take it."""
        labels, boxes = self.labels.split(self.counts), self.boxes.split(self.counts)
        return [{"labels": one, "boxes": few} for one, few in zip(labels, boxes, strict=True)]


def collate(samples: Sequence[Sample]) -> Batch:
    """Stack samples; where a place holder has no pixels, the batch is only good for its `bad`."""
    shapes = {sample.pixels.shape for sample in samples}
    whole = samples if len(shapes) == 1 else samples[:1]
    return Batch(
        images=[s.image for s in samples],
        pixels=torch.stack([s.pixels for s in whole]),
        labels=torch.cat([s.labels for s in samples]),
        boxes=torch.cat([s.boxes for s in samples]),
        counts=[len(s.labels) for s in samples],
        sizes=torch.tensor([s.size for s in samples], dtype=torch.float32),
        colours=torch.stack([s.colours for s in whole]),
        bad=tuple(bad for s in samples for bad in s.bad),
        files=tuple(s.file for s in samples),
    )


def training_boxes(
    table: Table, image: int, height: int, width: int
) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
    """What training learns from an image: no crowd regions, and of boxes `training_corners`.

    Returns:
        Corners in pixels, float32 [T, 4], and labels [T].
    """
    rows = table.rows(image)
    found = [training_corners(box, width, height) for box in table.boxes[rows].tolist()]
    keep = ~table.crowds[rows] & np.array([corners is not None for corners in found], dtype=bool)
    corners = np.array([c for c, kept in zip(found, keep, strict=True) if kept], np.float32)
    return corners.reshape(-1, 4), table.labels[rows][keep]


def open_annotated(table: Table, image: int) -> ImageFile | BadImage:
    """Open an image of a table; one of another size than annotated is bad."""
    path = table.path(image)
    opened = open_image_file(path)
    if isinstance(opened, BadImage):
        return opened
    problem = size_mismatch(table.stated_size(image), opened.size)
    if problem is None:
        return opened
    opened.close()
    return BadImage(str(path), problem)


def open_image(table: Table, image: int) -> Image.Image | BadImage:
    """Open an image of a table, and decode it: upright, RGB."""
    opened = open_annotated(table, image)
    return opened if isinstance(opened, BadImage) else opened.decode()


class EvaluationSet(Dataset[Sample]):
    """Plain samples: resized, nothing random. An undecodable image gives black pixels and says so.

    Boxes and labels are those that training would learn from; scoring takes its ground truth from
    the table.
    """

    def __init__(self, table: Table, resize: Resize) -> None:
        self.table, self.resize = table, resize

    def __len__(self) -> int:
        return len(self.table)

    def __getitem__(self, image: int) -> Sample:
        loaded = open_image(self.table, image)
        if isinstance(loaded, BadImage):
            return undecodable(image, (loaded,), self.resize.size)
        width, height = loaded.size
        corners, labels = training_boxes(self.table, image, height, width)
        pixels = self.resize.to_pixels(loaded)
        whole_width, whole_height = self.resize.extents(torch.tensor([loaded.size]))[0].tolist()
        boxes = normalise_boxes(torch.from_numpy(corners), whole_height, whole_width)
        return Sample(image, pixels, torch.from_numpy(labels), boxes, (width, height))


def undecodable(image: int, bad: tuple[BadImage, ...], size: tuple[int, int] = (0, 0)) -> Sample:
    """The place holder for an image without pixels."""
    none = torch.empty(0, 4)
    pixels = torch.zeros(3, *size, dtype=torch.uint8)
    return Sample(image, pixels, none[:, 0].long(), none, (1, 1), bad)
