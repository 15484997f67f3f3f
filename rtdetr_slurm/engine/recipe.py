"""Which parts of a published recipe are at work in which epoch. Pure."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rtdetr_slurm.spec import ExperimentConfig
    from rtdetr_slurm.spec.engine import RecipeName

WARMUP_STEPS = 2000
"""Of rtdetrv2 and deim; in a training whose epochs are shorter the warm-up is one epoch."""


@dataclass(frozen=True)
class Recipe:
    """The epochs of a training, by the recipe it follows.

    rtdetr is RT-DETR's (Zhao et al. 2023), which does the same in all epochs; rtdetrv2 is
    RT-DETRv2's (Lv et al. 2024), and deim is DEIM's (Huang et al. 2025). These two end with plain
    epochs: 1 of 72, 3 of 120, as published. DEIM begins with such, too, 4 of 120, and half of the
    epochs after those are dense: they have mosaics and mixed images, and with them more boxes for
    one-to-one matching.
    """

    name: RecipeName = "rtdetr"
    num_epochs: int = 1

    @property
    def end(self) -> int:
        """The first of the plain epochs at the end."""
        if self.name == "rtdetr":
            return self.num_epochs
        return self.num_epochs - max(1, self.num_epochs // 40)

    @property
    def dense(self) -> range:
        """The epochs with mosaics and mixed images."""
        if self.name != "deim":
            return range(0)
        start = self.num_epochs // 30
        return range(start, min(start + self.num_epochs // 2, self.end))

    def augments(self, epoch: int) -> bool:
        """Whether colours are distorted, and images zoomed out and cropped; they are flipped in any
        epoch."""
        return self.name == "rtdetr" or self.dense.start <= epoch < self.end

    def resizes(self, epoch: int) -> bool:
        """Whether batches have sizes of `multi_scales`, and not all that of training images."""
        return self.name == "rtdetr" or epoch < self.end

    def warmup_steps(self, steps_per_epoch: int) -> int:
        """Over which the learning rate rises where the spec does not say."""
        return 0 if self.name == "rtdetr" else min(WARMUP_STEPS, steps_per_epoch)


def recipe_of(experiment: ExperimentConfig) -> Recipe:
    """The recipe that a spec asks for."""
    return Recipe(experiment.engine.recipe, experiment.train.num_epochs)
