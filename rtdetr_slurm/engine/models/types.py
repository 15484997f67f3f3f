"""What goes into the model and what comes out of it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypedDict

import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from rtdetr_slurm.vision.samples import Target


@dataclass(frozen=True)
class PaddedTargets:
    """The targets of a batch as rectangular tensors; T is the largest count in the batch.

    Counts are known on the host from the shapes, so that building and using this costs no
    device synchronisation.
    """

    labels: Tensor
    """int64 [B, T], 0 where padded."""
    boxes: Tensor
    """float [B, T, 4] cxcywh in 0..1, 0 where padded."""
    valid: Tensor
    """bool [B, T], True for real boxes."""
    counts: tuple[int, ...]
    """Number of boxes per image."""

    @property
    def size(self) -> int:
        """T, the largest number of boxes in an image of the batch."""
        return self.labels.shape[1]

    def take(self, slots: Tensor) -> PaddedTargets:
        """The targets in some slots, int64 [B, T'], real boxes before padding."""
        return PaddedTargets(
            self.labels.gather(1, slots),
            self.boxes.gather(1, slots[..., None].expand(-1, -1, 4)),
            self.valid.gather(1, slots),
            tuple(min(count, slots.shape[1]) for count in self.counts),
        )

    @classmethod
    def from_list(
        cls, targets: Sequence[Target], dtype: torch.dtype | None = None
    ) -> PaddedTargets:
        """Pad the targets of at least one image; `dtype` of the boxes, if not their own."""
        counts = tuple(len(target["labels"]) for target in targets)
        labels = pad_sequence([target["labels"] for target in targets], batch_first=True)
        boxes = pad_sequence([target["boxes"].to(dtype) for target in targets], batch_first=True)
        number = torch.tensor(counts).to(labels.device, non_blocking=True)
        slot = torch.arange(labels.shape[1], device=labels.device)
        return cls(labels, boxes, slot < number[:, None], counts)


class Outputs(TypedDict, total=False):
    """What the model returns: in eval mode the first two alone.

    B images, Q queries, C classes, L decoder layers, N denoising queries.
    """

    pred_logits: Tensor
    """[B, Q, C], before the sigmoid."""
    pred_boxes: Tensor
    """[B, Q, 4], cxcywh in 0..1."""

    set_logits: Tensor
    """[L + 1, B, Q, C]: every decoder layer's predictions, then the encoder's selected queries."""
    set_boxes: Tensor
    """[L + 1, B, Q, 4]."""
    dn_logits: Tensor
    """[L, B, N, C]: every decoder layer's predictions for the denoising queries."""
    dn_boxes: Tensor
    """[L, B, N, 4]."""
    dn_groups: int
    """N = dn_groups * 2 * T: per group T queries from slightly moved boxes (positives), then T from
    far moved ones (negatives), in the order of the padded targets."""
    dn_slots: Tensor
    """int64 [B, T']: the padded targets that take part, in their order, where not all of them do; T
    is then T'."""
