"""Training a student with the help of a teacher: training, with another objective."""

from __future__ import annotations

from rtdetr_slurm.engine.actions.train import train
from rtdetr_slurm.engine.process.session import Session
from rtdetr_slurm.engine.training.distillation import distillation_objective


def distill(session: Session) -> dict[str, float]:
    """Train `model`, the student, to find objects and to see as `distill.teacher` does.

    Returns, raises:
        As `train`.
    """
    return train(session, distillation_objective, may_compile=False)
