"""From the spec's data sources to the data that a rank works on."""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from torch.utils.data import DataLoader

from rtdetr_slurm.data.check import Checks, check_batch_fits, check_folders, check_sources
from rtdetr_slurm.data.coco import Source
from rtdetr_slurm.engine.datasets.loaders import evaluation_loader, training_loader
from rtdetr_slurm.engine.datasets.order import image_weights
from rtdetr_slurm.engine.datasets.sampler import DistributedBatchSampler
from rtdetr_slurm.engine.datasets.sharing import share_table
from rtdetr_slurm.engine.datasets.training_set import TrainingSet
from rtdetr_slurm.engine.datasets.transforms import Augment
from rtdetr_slurm.engine.process.distributed import on_main
from rtdetr_slurm.engine.process.session import Session
from rtdetr_slurm.engine.recipe import recipe_of
from rtdetr_slurm.vision.image_set import ImageSet
from rtdetr_slurm.vision.samples import Batch, EvaluationSet
from rtdetr_slurm.vision.scoring import EvaluationData
from rtdetr_slurm.vision.table import Table, build_table, open_table


@dataclass(frozen=True)
class OpenSource:
    """A source of the action, checked.

    Attributes:
        folder: of its images, or the archive.
        annotations: the file.
        read: what that says, on rank 0; None elsewhere. For all ranks `table_of` makes of it what
            they need.
    """

    folder: Path
    annotations: Path
    read: Source | None = None


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


def open_sources(
    session: Session, kinds: Collection[str] | None = None
) -> dict[str, list[OpenSource]]:
    """Read and check what the action reads, as before it was queued; notes become warnings.

    One rank reads for all; each looks for the image folders.

    Args:
        kinds: of sources, as the action table names them; None: all of the action's.

    Returns:
        Kind, as the action table names it, to the sources that the spec gives.

    Raises:
        RequestError: naming the source and the spec field, and what would be right.
    """
    read: dict[str, list[Source]] = {}

    def check() -> tuple[dict[str, list[OpenSource]], tuple[str, ...]]:
        checked = check_sources(
            session.experiment,
            session.name,
            Checks(skip_bad_images=session.skip_bad_images, kinds=kinds),
        )
        read.update(checked.sources)
        opened = {
            kind: [OpenSource(source.folder, source.annotations.path) for source in group]
            for kind, group in read.items()
        }
        return opened, checked.notes

    opened, notes = on_main(check)
    check_folders({kind: [one.folder for one in group] for kind, group in opened.items()})
    for kind, group in read.items():
        opened[kind] = [
            replace(one, read=source) for one, source in zip(opened[kind], group, strict=True)
        ]
    if session.context.is_main:
        for note in notes:
            session.warn(note)
    return opened


def table_of(
    session: Session, sources: Sequence[OpenSource], classes: Mapping[int, str] | None = None
) -> Table:
    """The table of all `sources` together, once in the memory of each node; every rank must call
    it.

    Args:
        classes: id to name; None: as the sources say.

    Raises:
        RequestError: an id of theirs is no class index of the spec, or has different names in two.
    """

    def build() -> Table:
        read = [one.read for one in sources if one.read is not None]
        if classes is not None:
            return build_table(read, dict(classes))
        return open_table(read, session.experiment.dataset.num_classes)

    return share_table(session.context, build)


def open_training_data(
    session: Session, sources: Sequence[OpenSource], seed: int, images: int, parts: int
) -> TrainingData:
    """The training set: all `sources` together.

    Args:
        images: of an optimizer step on this rank.
        parts: the micro-batches that they come in.

    Raises:
        RequestError: it does not fill the batches of one step on every rank.
    """
    cfg, context = session.experiment.dataset, session.context
    table = table_of(session, sources)
    check_batch_fits(len(table), images // parts, context.world_size, parts)
    weights = image_weights(table, session.experiment.engine.sampling)
    sampler = DistributedBatchSampler(
        len(table), images, context.rank, context.world_size, seed, weights
    )
    sampler.parts = parts
    samples = TrainingSet(
        table,
        Augment(cfg.augmentation),
        seed,
        replace_bad=session.skip_bad_images,
        recipe=recipe_of(session.experiment),
        plain=Augment(cfg.augmentation, plain=True),
        weights=weights,
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
        samples or EvaluationSet(data.table, data.resize),
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
