"""From the spec's data sources to the data that a rank works on."""

from __future__ import annotations

import math
from collections.abc import Collection, Sequence
from dataclasses import dataclass

from torch.utils.data import DataLoader

from rtdetr_slurm.data.check import Checks, check_batch_fits, check_folders, check_sources
from rtdetr_slurm.data.coco import Source
from rtdetr_slurm.engine.datasets.loaders import evaluation_loader, training_loader
from rtdetr_slurm.engine.datasets.sampler import DistributedBatchSampler
from rtdetr_slurm.engine.datasets.training_set import TrainingSet
from rtdetr_slurm.engine.datasets.transforms import Augment
from rtdetr_slurm.engine.process.distributed import on_main
from rtdetr_slurm.engine.process.session import Session
from rtdetr_slurm.vision.image_set import ImageSet
from rtdetr_slurm.vision.samples import Batch, EvaluationSet
from rtdetr_slurm.vision.scoring import EvaluationData
from rtdetr_slurm.vision.table import Table, open_table


@dataclass(frozen=True)
class TrainingData:
    """Training samples of one rank."""

    table: Table
    sampler: DistributedBatchSampler
    loader: DataLoader[Batch]


@dataclass(frozen=True)
class EvaluationShare:
    """A set to score and this rank's share of it, in batches.

    Attributes:
        batch_size: images per rank and step.
    """

    data: EvaluationData
    loader: DataLoader[Batch]
    batch_size: int

    def steps(self, ranks: int) -> int:
        """Batches of rank 0, which has the most."""
        return math.ceil(math.ceil(len(self.data.table) / self.batch_size) / ranks)


def open_sources(session: Session, kinds: Collection[str] | None = None) -> dict[str, list[Source]]:
    """Read and check what the action reads, as before it was queued; notes become warnings.

    One rank reads for all, which may be many on a node; each looks for the image folders.

    Args:
        kinds: of sources, as the action table names them; None: all of the action's.

    Returns:
        Kind, as the action table names it, to the sources that the spec gives.

    Raises:
        RequestError: naming the source and the spec field, and what would be right.
    """
    checked = on_main(
        lambda: check_sources(
            session.experiment,
            session.name,
            Checks(skip_bad_images=session.skip_bad_images, kinds=kinds),
        )
    )
    check_folders(checked.sources)
    if session.context.is_main:
        for note in checked.notes:
            session.warn(note)
    return checked.sources


def open_training_data(session: Session, sources: Sequence[Source], seed: int) -> TrainingData:
    """The training set: all `sources` together.

    Raises:
        RequestError: it does not fill one batch on every rank.
    """
    cfg, context = session.experiment.dataset, session.context
    table = open_table(sources, cfg.num_classes)
    check_batch_fits(len(table), cfg.batch_size, context.world_size)
    sampler = DistributedBatchSampler(
        len(table), cfg.batch_size, context.rank, context.world_size, seed
    )
    samples = TrainingSet(
        table, Augment(cfg.augmentation), seed, replace_bad=session.skip_bad_images
    )
    loader = training_loader(samples, sampler, workers=workers(session), pin_memory=_pin(session))
    return TrainingData(table, sampler, loader)


def share_evaluation(
    session: Session,
    data: EvaluationData,
    batch_size: int | None = None,
    samples: EvaluationSet | ImageSet | None = None,
) -> EvaluationShare:
    """This rank's share of a set.

    Args:
        batch_size: the spec's dataset.batch_size where None.
        samples: of the images of `data`, in its order; those of an EvaluationSet where None.
    """
    batch_size = batch_size or session.experiment.dataset.batch_size
    loader = evaluation_loader(
        samples or EvaluationSet(data.table, data.size),
        batch_size,
        session.context.rank,
        session.context.world_size,
        workers=workers(session),
        pin_memory=_pin(session),
    )
    return EvaluationShare(data, loader, batch_size)


def workers(session: Session) -> int:
    """Loading processes of this rank: `dataset.workers`, but no more than it has CPU cores."""
    return min(session.experiment.dataset.workers, session.context.cpus)


def _pin(session: Session) -> bool:
    return session.experiment.dataset.pin_memory and session.context.device.type == "cuda"
