"""Contrastive denoising queries: noisy copies of the targets that training learns to repair.

Zhang et al. 2023 (arXiv:2203.03605). The random numbers are drawn in the order of the published
implementations, so that equal seeds give equal noise.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from rtdetr_slurm.engine.models.layers import inverse_sigmoid
from rtdetr_slurm.engine.models.types import PaddedTargets

LABEL_NOISE = 0.5
"""Half of this share of the labels is replaced by a random class."""
BOX_NOISE = 1.0
"""Positives' corners move by up to this share of half the box size, negatives' by up to twice."""


@dataclass(frozen=True)
class DenoisingQueries:
    """N = groups * 2 * T queries to put in front of the Q selected ones."""

    content: Tensor
    """[B, N, D]."""
    box_logits: Tensor
    """[B, N, 4], inverse sigmoid of cxcywh."""
    allowed: Tensor
    """bool [N + Q, N + Q], True where the row's query may attend to the column's."""
    groups: int
    slots: Tensor | None
    """int64 [B, T], the targets that were copied, where not all were."""


def _with_one_slot(targets: PaddedTargets) -> PaddedTargets:
    """A batch without any box gets one padded slot: the graph is then the same on every rank."""
    labels = targets.labels.new_zeros(len(targets.counts), 1)
    boxes = targets.boxes.new_zeros(len(targets.counts), 1, 4)
    return PaddedTargets(labels, boxes, torch.zeros_like(labels, dtype=torch.bool), targets.counts)


def denoising_queries(
    targets: PaddedTargets,
    budget: int,
    num_classes: int,
    num_queries: int,
    embed: Callable[[Tensor], Tensor],
) -> DenoisingQueries:
    """Make the denoising queries of a batch.

    Args:
        targets: of the batch; T boxes in the fullest image.
        budget: positives per image at most; there are budget // T groups of T. Of an image with
            more boxes than that, as many are chosen at random. (The published implementations copy
            them all: attention then grows with the square of the fullest image.)
        num_classes: also the label that `embed` maps to zero, used for padding.
        num_queries: Q.
        embed: int [B, N] labels to [B, N, D].
    """
    slots = None
    if targets.size > budget:
        slots = _random_slots(targets.valid, budget)
        targets = targets.take(slots)
    if targets.size == 0:
        targets, groups = _with_one_slot(targets), 1
    else:
        groups = budget // targets.size
    repeat = 2 * groups
    valid = targets.valid.repeat(1, repeat)
    labels = targets.labels.masked_fill(~targets.valid, num_classes).to(torch.int32)
    labels = _noisy_labels(labels.repeat(1, repeat), valid, num_classes)
    negative = torch.arange(repeat, device=labels.device) % 2 == 1
    negative = negative.repeat_interleave(targets.size)[None, :, None]
    boxes = _noisy_boxes(targets.boxes.repeat(1, repeat, 1), negative)
    group = torch.arange(groups, device=labels.device).repeat_interleave(2 * targets.size)
    return DenoisingQueries(
        embed(labels), inverse_sigmoid(boxes), _attention_mask(group, num_queries), groups, slots
    )


def _random_slots(valid: Tensor, number: int) -> Tensor:
    """int64 [B, number]: slots drawn from the valid ones; padding where there are too few."""
    order = torch.rand(valid.shape, device=valid.device).masked_fill_(~valid, 2)
    return order.argsort(dim=1)[:, :number]


def _noisy_labels(labels: Tensor, valid: Tensor, num_classes: int) -> Tensor:
    chosen = torch.rand_like(labels, dtype=torch.float32) < LABEL_NOISE * 0.5
    other = torch.randint_like(labels, 0, num_classes)
    return torch.where(chosen & valid, other, labels)


def _noisy_boxes(boxes: Tensor, negative: Tensor) -> Tensor:
    """boxes [B, N, 4] cxcywh to the same; negative [1, N, 1]."""
    centre, size = boxes[..., :2], boxes[..., 2:]
    corners = torch.cat([centre - 0.5 * size, centre + 0.5 * size], dim=-1)
    reach = size.repeat(1, 1, 2) * (0.5 * BOX_NOISE)
    sign = torch.randint_like(boxes, 0, 2) * 2.0 - 1.0
    distance = torch.rand_like(boxes) + negative.to(boxes.dtype)
    low, high = (corners + sign * distance * reach).clamp(0, 1).chunk(2, dim=-1)
    return torch.cat([(low + high) / 2, high - low], dim=-1)


def _attention_mask(group: Tensor, num_queries: int) -> Tensor:
    """Everybody sees the selected queries; a group sees itself; nobody else sees a group."""
    selected = group.new_full((num_queries,), -1)
    group = torch.cat([group, selected])
    return (group[None, :] == -1) | (group[None, :] == group[:, None])
