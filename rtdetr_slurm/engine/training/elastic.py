"""What of an optimizer step a rank computes: as the spec says, or, on another number of ranks than
before, what falls to it of the same step."""

from __future__ import annotations

from dataclasses import dataclass

from rtdetr_slurm.engine.process.session import Session
from rtdetr_slurm.engine.training.checkpoint import TrainingCheckpoint
from rtdetr_slurm.errors import RequestError
from rtdetr_slurm.resolved_spec import value_at


@dataclass(frozen=True)
class Share:
    """What one rank computes of a step.

    Attributes:
        images: so many.
        parts: the equal micro-batches that they come in.
    """

    images: int
    parts: int


def share_of_step(session: Session, begun: TrainingCheckpoint | None) -> Share:
    """The share of each rank. Where `engine.elastic` goes on from a checkpoint whose spec had the
    same batches, a step keeps its images, however many ranks there are now.

    Raises:
        RequestError: they cannot be shared equally by so many.
    """
    experiment, ranks = session.experiment, session.context.world_size
    own = Share(experiment.images_per_step, experiment.engine.accumulate)
    if not experiment.engine.elastic or begun is None or _spec_has_other_batches(session, begun):
        return own
    together = begun["batch_size"] * begun["world_size"]
    if together == own.images * ranks:
        return own
    share = divided(together, ranks, experiment.dataset.batch_size)
    if share is None:
        raise RequestError(
            f"engine.elastic: a step has had {together} images, which {ranks} ranks cannot share; "
            f"allowed: a number of ranks that divides {together}"
        )
    session.say(
        f"{ranks} ranks go on for {begun['world_size']}: a step still has {together} images, "
        f"{share.images} of each rank in {share.parts} micro-batches"
    )
    return share


def divided(together: int, ranks: int, most: int) -> Share | None:
    """Images of a step, shared by ranks that compute no more than `most` at a time; None where they
    cannot be shared equally."""
    images, left = divmod(together, ranks)
    if left or not images:
        return None
    return Share(
        images, next(n for n in range(1, images + 1) if images % n == 0 and images <= n * most)
    )


def _spec_has_other_batches(session: Session, begun: TrainingCheckpoint) -> bool:
    """Whether somebody wants other steps than before, which a new epoch may have."""
    spec, experiment = begun["spec"], session.experiment
    accumulated = value_at(spec, "engine.accumulate") or 1
    return bool(value_at(spec, "dataset.batch_size") * accumulated != experiment.images_per_step)
