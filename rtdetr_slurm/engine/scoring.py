"""Running a model over a labelled set and scoring it; used while training and by `evaluate`."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from rtdetr_slurm.engine import metrics
from rtdetr_slurm.engine.action import Action
from rtdetr_slurm.engine.datasets.batches import Batch
from rtdetr_slurm.engine.distributed import gather_objects, sum_over_ranks
from rtdetr_slurm.engine.losses import Criterion
from rtdetr_slurm.engine.postprocess import postprocess
from rtdetr_slurm.engine.preprocess import to_unit_range
from rtdetr_slurm.engine.sources import EvaluationData
from rtdetr_slurm.engine.stop import Interrupted


@dataclass(frozen=True)
class Scores:
    """The result of scoring, on rank 0.

    Attributes:
        loss: of the layer that is read out, per box; NaN without a criterion.
        detections: [D, 7]: image position, left, top, width, height, score, label.
    """

    metrics: metrics.Metrics
    loss: float
    detections: NDArray[np.float64]


@torch.no_grad()
def score_model(
    action: Action, model: nn.Module, data: EvaluationData, criterion: Criterion | None = None
) -> Scores | None:
    """Score `model`, in float32, on all images of `data`; the ranks share the work.

    The numbers do not depend on how many ranks there are, nor on the batch size.

    Returns:
        The scores on rank 0, None elsewhere.

    Raises:
        Interrupted: the ranks were asked to stop; nothing was written.
        ActionError: an image cannot be decoded and such images are not to be skipped. A skipped
            one counts as an image in which nothing was found.
    """
    device = action.context.device
    model.eval()
    found: list[NDArray[np.float64]] = []
    total = torch.zeros(2, dtype=torch.float64, device=device)  # summed loss, boxes
    for batch in _in_step(action, data):
        if batch is None:
            continue
        unread = _unread_images(action, data, batch)
        batch = batch.to(device)
        outputs = model(to_unit_range(batch.pixels).contiguous(memory_format=torch.channels_last))
        logits, boxes = outputs["pred_logits"], outputs["pred_boxes"]
        found.append(_rows(batch, logits, boxes, data, unread))
        if criterion is not None:
            total += torch.stack(_loss(criterion, batch, logits, boxes))
    action.record_bad_images()
    sum_over_ranks(total)
    gathered = gather_objects(np.concatenate([np.empty((0, 7)), *found]))
    if not action.context.is_main:
        return None
    detections = np.concatenate(gathered)
    detections = detections[np.argsort(detections[:, 0], kind="stable")]
    loss, num_boxes = total.tolist()
    return Scores(
        metrics.score(data.table, detections, data.class_ids),
        math.nan if criterion is None else loss / max(num_boxes, 1),
        detections,
    )


def _in_step(action: Action, data: EvaluationData) -> Iterator[Batch | None]:
    """This rank's batches, padded with None so that every rank has as many as rank 0.

    Before each, the ranks agree on whether to stop.
    """
    batches = iter(data.loader)
    share = math.ceil(len(data.table) / action.context.world_size)
    for _ in range(math.ceil(share / data.batch_size)):
        asked = torch.tensor(float(action.stop.requested), device=action.context.device)
        if sum_over_ranks(asked).item():
            raise Interrupted
        yield next(batches, None)


def _unread_images(action: Action, data: EvaluationData, batch: Batch) -> set[int]:
    """Positions of images that could not be decoded."""
    action.meet_bad_images(batch.bad)
    paths = {bad.path for bad in batch.bad}
    return {image for image in batch.images if paths and str(data.table.path(image)) in paths}


def _rows(
    batch: Batch, logits: Tensor, boxes: Tensor, data: EvaluationData, unread: set[int]
) -> NDArray[np.float64]:
    found = postprocess(logits, boxes, batch.sizes, data.num_select)
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
    keep = rows[:, 5] >= data.conf_threshold
    return rows[keep & ~np.isin(rows[:, 0], list(unread))]


def _loss(criterion: Criterion, batch: Batch, logits: Tensor, boxes: Tensor) -> list[Tensor]:
    """Summed loss of the batch's predictions, and its number of boxes."""
    one = torch.ones((), device=logits.device)
    terms = criterion.layer_terms(logits, boxes, batch.targets(), one)
    return [sum(terms.values(), torch.zeros_like(one)).double(), one.double() * batch.num_boxes]
