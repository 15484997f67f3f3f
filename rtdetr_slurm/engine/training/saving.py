"""The state of a training, to its results folder; every rank calls these at the same step."""

from __future__ import annotations

from pathlib import Path
from typing import NoReturn

from rtdetr_slurm.contract import FailureClass
from rtdetr_slurm.engine.process.distributed import barrier, spread_over_ranks
from rtdetr_slurm.engine.process.phases import Phase
from rtdetr_slurm.engine.process.stop import Interrupted
from rtdetr_slurm.engine.training.checkpoint import (
    interrupted_path,
    remove_interrupted,
    save_checkpoint,
    step_path,
)
from rtdetr_slurm.engine.training.parallel import copies
from rtdetr_slurm.engine.training.snapshot import capture
from rtdetr_slurm.engine.training.state import Training
from rtdetr_slurm.errors import ActionError

MAX_WEIGHT_SPREAD = 1e-2
"""Above this the ranks no longer train one detector; equal processors stay at 0."""


def save_state(training: Training, *, keep: bool = False) -> Path:
    """Write the state of this moment, which supersedes what earlier interruptions have left.

    Args:
        keep: under a name that no later state supersedes.
    """
    session, position = training.session, training.state.position
    with session.phases.during(Phase.SAVING):
        content = capture(training)
        check_equal_weights(training)
        named = step_path if keep else interrupted_path
        path = named(session.results_dir, position.epoch, position.step_in_epoch)
        if session.context.is_main:
            session.check_latest()
            save_checkpoint(path, content, session.key)
            remove_interrupted(session.results_dir, but=path)
        barrier()  # who waits for rank 0 is saving, too, and makes no step meanwhile
    return path


def is_step_due(training: Training) -> bool:
    """Whether a checkpoint is due after the step that was just made."""
    cfg = training.session.experiment.train
    by_steps = cfg.checkpoint_interval_unit == "step"
    return by_steps and training.state.position.step % cfg.checkpoint_interval == 0


def is_periodic(training: Training, epoch: int) -> bool:
    """Whether `train.checkpoint_interval` wants a checkpoint at the end of an epoch.

    Args:
        epoch: the one that training stands at the end of, or one before it; between two epochs, one
            that is done.
    """
    cfg, position = training.session.experiment.train, training.state.position
    if cfg.checkpoint_interval_unit == "epoch":
        return (epoch + 1) % cfg.checkpoint_interval == 0
    behind = position.epoch - epoch - (position.step_in_epoch == 0)  # whole epochs after that one
    step = position.step - behind * training.data.sampler.steps_per_epoch
    return step % cfg.checkpoint_interval == 0


def check_equal_weights(training: Training) -> None:
    """Data-parallel training is sound only while all ranks hold the same weights: make sure. Of
    what is split (fsdp) there are no two copies that could differ.

    Raises:
        ActionError: they have drifted apart by more than rounding on unlike processors explains.
    """
    context = training.session.context
    held = copies(training.state.objective)
    if context.world_size == 1 or not held:
        return
    spread = spread_over_ranks(held)
    if not spread <= MAX_WEIGHT_SPREAD:
        raise ActionError(
            f"the weights of the {context.world_size} ranks differ by up to {spread:g}; no "
            "checkpoint is written. This is a fault of the network, the memory or the driver of "
            "a node: go on from the previous checkpoint on other nodes",
            FailureClass.INFRA,
        )
    training.session.say(f"{context.world_size} ranks hold equal weights (spread {spread:g})")


def interrupt(training: Training) -> NoReturn:
    """Write the state of this moment, but of a dry run, and end.

    Raises:
        Interrupted: always.
    """
    if not training.session.experiment.train.is_dry_run:
        save_state(training)
    raise Interrupted
