"""What training minimises.

An objective is a module: its call runs the forward pass and returns the loss and its terms. It
holds all that is trained, so that wrapping it in DistributedDataParallel covers every parameter.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TypeAlias

import torch
from torch import Tensor, nn

from rtdetr_slurm.engine.losses import Criterion
from rtdetr_slurm.engine.models import RTDETR
from rtdetr_slurm.engine.process.session import Session
from rtdetr_slurm.engine.training.precision import autocast, training_precision
from rtdetr_slurm.vision.samples import Target


class DetectionObjective(nn.Module):
    """RT-DETR's own losses on what the detector predicts.

    Args:
        precision: of the forward pass: fp32, bf16 or fp16. The losses are float32.

    Attributes:
        auxiliary: what is trained beside the detector, for the training alone: nothing here.
    """

    def __init__(self, detector: RTDETR, criterion: Criterion, precision: str) -> None:
        super().__init__()
        self.detector, self.criterion, self.precision = detector, criterion, precision
        self.auxiliary = nn.ModuleList()

    def forward(
        self, images: Tensor, targets: Sequence[Target], num_boxes: Tensor
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """The loss of a batch.

        Args:
            images: float32 [B, 3, H, W] in 0..1.
            targets: one per image.
            num_boxes: scalar; boxes per rank, averaged over the ranks, at least 1.

        Returns:
            The loss, and the terms by name that it is the sum of; scalars in float32.
        """
        with autocast(self.precision, images.device):
            outputs = self.detector(images, targets)
        terms = self.criterion(outputs, targets, num_boxes)
        return torch.stack(list(terms.values())).sum(), terms


BuildObjective: TypeAlias = Callable[
    [Session, RTDETR, Criterion, Mapping[int, str]], DetectionObjective
]
"""From a session, the detector to train, with the weights that it begins with, its own losses and
the classes of the data to an objective."""


def detection_objective(
    session: Session, detector: RTDETR, criterion: Criterion, _classes: Mapping[int, str]
) -> DetectionObjective:
    """The objective of the action `train`."""
    precision = training_precision(session.experiment.train, session.context.device)
    return DetectionObjective(detector, criterion, precision)
