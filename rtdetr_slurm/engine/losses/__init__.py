"""The training objective of RT-DETR."""

from rtdetr_slurm.engine.losses.criterion import Criterion, build_criterion

__all__ = ["Criterion", "build_criterion"]
