"""Network output to detections: the one definition for evaluation and deployment."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from rtdetr_slurm.vision.boxes import cxcywh_to_xyxy


@dataclass(frozen=True)
class Detections:
    """K detections for each of B images, best first.

    Attributes:
        scores: float32 [B, K] in 0..1.
        labels: int64 [B, K], class indices.
        boxes: float32 [B, K, 4], left, top, right, bottom in pixels of the original image; not
            clipped to it.
    """

    scores: Tensor
    labels: Tensor
    boxes: Tensor


def postprocess(logits: Tensor, boxes: Tensor, extents: Tensor, num_select: int) -> Detections:
    """Take the best (query, class) pairs; a query may appear with several classes; no NMS.

    Args:
        logits: [B, Q, C], before the sigmoid.
        boxes: [B, Q, 4], cxcywh in 0..1.
        extents: [B, 2], width and height of the network's input in pixels of the original image
            (`Resize.extents`).
        num_select: how many pairs to keep; with fewer pairs there are, all are kept.
    """
    num_classes = logits.shape[-1]
    scores = logits.float().sigmoid().flatten(1)
    scores, index = scores.topk(min(num_select, scores.shape[1]), dim=1)
    query = index // num_classes
    chosen = boxes.float().gather(1, query[..., None].expand(-1, -1, 4))
    corners = cxcywh_to_xyxy(chosen)
    scale = extents.to(corners).repeat(1, 2)[:, None]
    return Detections(scores, index % num_classes, corners * scale)
