"""A look at what a detector finds: a few images of a set with their detections drawn in."""

from __future__ import annotations

import io
from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray

from rtdetr_slurm.data.pixels import BadImage, load_image
from rtdetr_slurm.vision.drawing import Drawn, draw_sheet
from rtdetr_slurm.vision.scoring import EvaluationData, Predict, detect_image

EXAMPLES = 8
"""How many images are shown at most."""


def draw_examples(predict: Predict, data: EvaluationData, device: torch.device) -> bytes:
    """A sheet of images spread evenly over the set, as JPEG; undecodable ones are left out."""
    sheet = io.BytesIO()
    pictures = _detected_examples(predict, data, device)
    draw_sheet(pictures, data.table.classes).save(sheet, "JPEG", quality=92)
    return sheet.getvalue()


def _detected_examples(
    predict: Predict, data: EvaluationData, device: torch.device
) -> list[tuple[NDArray[np.uint8], Sequence[Drawn]]]:
    count = min(EXAMPLES, len(data.table))
    pictures: list[tuple[NDArray[np.uint8], Sequence[Drawn]]] = []
    for number in range(count):
        pixels = load_image(data.table.path(number * len(data.table) // count))
        if isinstance(pixels, BadImage):
            continue
        found = detect_image(predict, pixels, data, device)
        rows = zip(
            found.boxes[0].tolist(), found.labels[0].tolist(), found.scores[0].tolist(), strict=True
        )
        pictures.append((pixels, [Drawn(tuple(b), label, score) for b, label, score in rows]))
    return pictures
