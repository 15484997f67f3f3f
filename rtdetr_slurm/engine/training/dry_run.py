"""`train.is_dry_run`: see whether a training would work, and leave nothing that passes for one."""

from __future__ import annotations

from rtdetr_slurm.contract import Kpi
from rtdetr_slurm.engine.process.phases import Phase
from rtdetr_slurm.engine.training.loop import mean_loss, score, train_steps, validation_kpi
from rtdetr_slurm.engine.training.state import Training


def dry_run(training: Training) -> dict[str, float]:
    """One step of training, and a validation of what is to be scored; no checkpoint is written.

    Returns, raises:
        As `train_epochs`.
    """
    session, position = training.session, training.state.position
    steps = training.data.sampler.steps_per_epoch
    position.step_in_epoch, position.loss_sum = steps - 1, 0.0  # the last of an epoch alone
    session.say("dry run: one step of training, one batch of validation, no checkpoint")
    with session.phases.during(Phase.STEPPING, epoch=0, step=steps - 1, steps=steps):
        train_steps(training)
    session.record_bad_images()
    kpi = {Kpi.TRAIN_LOSS: mean_loss(training, 1), **training.costs}
    scores = None if training.validation is None else score(training)
    kpi |= {} if scores is None else validation_kpi(scores)
    said = "  ".join(f"{name} {value:.4f}" for name, value in kpi.items())
    session.say(f"dry run works  {said}; train.is_dry_run: false trains")
    return kpi
