"""The images that a detector does worst on, with what is there and what it found."""

from __future__ import annotations

import io
import math
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from PIL import Image

from rtdetr_slurm.data.pixels import BadImage
from rtdetr_slurm.figures import ShownBox
from rtdetr_slurm.vision.analysis import KINDS, RIGHT
from rtdetr_slurm.vision.assessment import Assessment
from rtdetr_slurm.vision.matching import Flags
from rtdetr_slurm.vision.samples import open_image

PICTURES = 12
"""Images that are shown at most."""
SIDE = 640
"""Their longer side in pixels at most."""
QUALITY = 80
"""Of their JPEG files."""
BOXES = 100
"""Boxes of each sort that are drawn in one image at most: of detections the best."""


@dataclass(frozen=True)
class Picture:
    """An image, shrunk where it is large, and the boxes on it.

    Attributes:
        name: of its file. errors: on it.
    """

    name: str
    errors: int
    jpeg: bytes
    width: int
    height: int
    boxes: tuple[ShownBox, ...]


def worst_pictures(assessment: Assessment, most: int = PICTURES) -> list[Picture]:
    """The images with the most errors among the detections that count; without those that cannot be
    decoded."""
    matching, analysis = assessment.matching, assessment.analysis
    pictures = []
    for image in analysis.worst_images(matching, most):
        opened = open_image(assessment.table, image)
        if isinstance(opened, BadImage):
            continue
        width, height = opened.size
        scale = min(1.0, SIDE / max(height, width))
        size = (max(1, round(width * scale)), max(1, round(height * scale)))
        file = io.BytesIO()
        opened.resize(size, Image.Resampling.BOX).save(file, "JPEG", quality=QUALITY)
        here = analysis.counted & (matching.image == image)
        lost = analysis.missed & (matching.truth.image == image)
        errors = int(np.count_nonzero(here & (analysis.kind >= 0)) + np.count_nonzero(lost))
        boxes = (*_truth(assessment, image, scale), *_detections(assessment, here, scale))
        boxes = tuple(one for one in boxes if _can_be_drawn(one))
        name = assessment.table.path(image).name
        pictures.append(Picture(name, errors, file.getvalue(), *size, boxes))
    return pictures


def _truth(assessment: Assessment, image: int, scale: float) -> Iterator[ShownBox]:
    truth, names = assessment.matching.truth, assessment.table.classes
    for number in np.flatnonzero(truth.image == image)[:BOXES].tolist():
        left, top, width, height = (truth.boxes[number] * scale).tolist()
        name = names[int(truth.label[number])]
        if assessment.analysis.missed[number]:
            yield ShownBox((left, top, width, height), "missed", f"{name}, not found")
        else:
            yield ShownBox((left, top, width, height), "truth", name)


def _detections(assessment: Assessment, here: Flags, scale: float) -> Iterator[ShownBox]:
    matching, names = assessment.matching, assessment.table.classes
    for number in np.flatnonzero(here)[:BOXES].tolist():
        kind = int(assessment.analysis.kind[number])
        left, top, width, height = (matching.boxes[number] * scale).tolist()
        text = f"{names[int(matching.label[number])]} {matching.score[number]:.2f}"
        if kind == RIGHT:
            yield ShownBox((left, top, width, height), "right", text)
        else:
            yield ShownBox((left, top, width, height), "wrong", f"{text}, {KINDS[kind]}")


def _can_be_drawn(shown: ShownBox) -> bool:
    """Not of a detector that is broken."""
    return all(map(math.isfinite, shown.box)) and shown.box[2] >= 0 and shown.box[3] >= 0
