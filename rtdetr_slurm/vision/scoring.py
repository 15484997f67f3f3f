"""What a detector finds on a labelled set, and what that is worth.

The detector is a `Predict`: a network in PyTorch, or any runtime it is deployed with. `detect`,
and then `assessment.assess` on all that was found, leads from one to its numbers.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeAlias

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from rtdetr_slurm.errors import ActionError
from rtdetr_slurm.vision.postprocess import Detections, postprocess
from rtdetr_slurm.vision.preprocess import Resize, preprocess, to_unit_range
from rtdetr_slurm.vision.samples import Batch
from rtdetr_slurm.vision.table import Table

if TYPE_CHECKING:
    from rtdetr_slurm.spec import ExperimentConfig

Predict: TypeAlias = Callable[[Tensor], Mapping[str, Tensor]]
"""Images, float32 [B, 3, H, W] in 0..1, to `pred_logits` [B, Q, C], before the sigmoid, and
`pred_boxes` [B, Q, 4], cxcywh in 0..1."""


@dataclass(frozen=True)
class EvaluationData:
    """Images with their ground truth, and how detections on them are scored.

    Attributes:
        resize: to the network's input.
        num_select: detections per image.
        class_ids: the classes that count; None means all.
        conf_threshold: detections below it are dropped.
    """

    table: Table
    resize: Resize
    num_select: int
    class_ids: list[int] | None = None
    conf_threshold: float = 0.0


@dataclass(frozen=True)
class Detected:
    """A batch and what was found on it.

    Attributes:
        logits, boxes: the detector's output, on its device.
        rows: float64 [D, 7]: image position, left, top, width, height (pixels), score, label.
    """

    batch: Batch
    logits: Tensor
    boxes: Tensor
    rows: NDArray[np.float64]


def evaluation_data(
    experiment: ExperimentConfig,
    table: Table,
    *,
    size: tuple[int, int] | None = None,
    conf_threshold: float = 0.0,
) -> EvaluationData:
    """A table to score detections on.

    Args:
        size: (height, width); None: that of the spec's dataset section.
    """
    height, width = size or experiment.dataset.augmentation.eval_spatial_size
    return EvaluationData(
        table,
        resize_of(experiment, (height, width)),
        experiment.model.num_select,
        experiment.dataset.eval_class_ids or None,
        conf_threshold,
    )


def resize_of(experiment: ExperimentConfig, size: tuple[int, int]) -> Resize:
    """How the spec wants images outside training, of an input of (height, width)."""
    return Resize(size, experiment.dataset.augmentation.preserve_aspect_ratio)


def detect(
    predict: Predict, batches: Iterable[Batch], data: EvaluationData, device: torch.device
) -> Iterator[Detected]:
    """Run a detector over batches of `data`.

    An image that could not be decoded counts as one in which nothing was found.

    Raises:
        ActionError: the detector's output is no number.
    """
    for batch in batches:
        batch = batch.to(device)
        with torch.no_grad():
            outputs = predict(to_unit_range(batch.pixels))
        logits, boxes = outputs["pred_logits"], outputs["pred_boxes"]
        yield Detected(batch, logits, boxes, _rows(batch, logits, boxes, data))


def detect_image(
    predict: Predict, pixels: NDArray[np.uint8], data: EvaluationData, device: torch.device
) -> Detections:
    """Run a detector on one image, uint8 [H, W, 3]; its detections on the CPU."""
    with torch.no_grad():
        outputs = predict(preprocess(pixels, data.resize).to(device))
    extents = data.resize.extents(torch.tensor([[pixels.shape[1], pixels.shape[0]]]))
    logits, boxes = outputs["pred_logits"].cpu(), outputs["pred_boxes"].cpu()
    return postprocess(logits, boxes, extents, data.num_select)


def _rows(batch: Batch, logits: Tensor, boxes: Tensor, data: EvaluationData) -> NDArray[np.float64]:
    found = postprocess(logits, boxes, data.resize.extents(batch.sizes), data.num_select)
    per_image = found.scores.shape[1]
    corners = found.boxes.double()
    columns = [
        torch.tensor(batch.images, device=logits.device)[:, None, None].expand(-1, per_image, 1),
        corners[..., :2],
        corners[..., 2:] - corners[..., :2],
        found.scores[..., None],
        found.labels[..., None],
    ]
    rows: NDArray[np.float64] = (
        torch.cat([c.double() for c in columns], -1).flatten(0, 1).cpu().numpy()
    )
    if not np.isfinite(rows).all():
        image = int(rows[~np.isfinite(rows).all(axis=1)][0, 0])
        raise ActionError(
            f"the detector's output for image {data.table.describe(image)} is no number (NaN or "
            "infinite): its weights are damaged, or what it computes overflows"
        )
    keep = rows[:, 5] >= data.conf_threshold
    return rows[keep & ~np.isin(rows[:, 0], _undecoded(batch, data.table))]


def _undecoded(batch: Batch, table: Table) -> list[int]:
    """Positions of images that could not be decoded."""
    paths = {bad.path for bad in batch.bad}
    return [image for image in batch.images if paths and str(table.path(image)) in paths]
