"""From the spec's data sources to the data an action works on."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from torch.utils.data import DataLoader

from rtdetr_slurm.data.coco import Source, class_names
from rtdetr_slurm.engine.action import Action
from rtdetr_slurm.engine.datasets.batches import (
    Batch,
    TrainingOrder,
    evaluation_loader,
    training_loader,
)
from rtdetr_slurm.engine.datasets.detection import EvaluationSet, TrainingSet
from rtdetr_slurm.engine.datasets.table import Table, build_table
from rtdetr_slurm.engine.datasets.transforms import Augment
from rtdetr_slurm.errors import RequestError


@dataclass(frozen=True)
class TrainingData:
    """Training samples of one rank."""

    table: Table
    order: TrainingOrder
    loader: DataLoader[Batch]


@dataclass(frozen=True)
class EvaluationData:
    """Images to score, their share of this rank, and how they are scored.

    Attributes:
        batch_size: images per rank and step.
        size: (height, width) of the network's input.
        class_ids: the classes that count; None means all.
        conf_threshold: detections below it are dropped.
        num_select: detections per image.
    """

    table: Table
    loader: DataLoader[Batch]
    batch_size: int
    size: tuple[int, int]
    class_ids: list[int] | None
    num_select: int
    conf_threshold: float = 0.0


def open_training_data(action: Action, sources: Sequence[Source], seed: int) -> TrainingData:
    """The training set: all `sources` together.

    Raises:
        RequestError: it does not fill one batch on every rank.
    """
    cfg, context = action.experiment.dataset, action.context
    table = _open_table(action, sources)
    order = TrainingOrder(len(table), cfg.batch_size, context.rank, context.world_size, seed)
    if not order.steps_per_epoch:
        raise RequestError(
            f"the training set has {len(table)} images, fewer than one batch on every rank: "
            f"dataset.batch_size {cfg.batch_size} x {context.world_size} ranks = "
            f"{cfg.batch_size * context.world_size}. Lower the batch size or use fewer GPUs"
        )
    samples = TrainingSet(
        table, Augment(cfg.augmentation), seed, replace_bad=action.skip_bad_images
    )
    loader = training_loader(samples, order, workers=workers(action), pin_memory=_pin(action))
    return TrainingData(table, order, loader)


def open_evaluation_data(
    action: Action,
    source: Source,
    *,
    size: tuple[int, int] | None = None,
    batch_size: int | None = None,
    conf_threshold: float = 0.0,
) -> EvaluationData:
    """A source to score; what is not given comes from the spec's dataset section."""
    cfg, context = action.experiment.dataset, action.context
    height, width = size or cfg.augmentation.eval_spatial_size
    batch_size = batch_size or cfg.batch_size
    table = _open_table(action, [source])
    loader = evaluation_loader(
        EvaluationSet(table, (height, width)),
        batch_size,
        context.rank,
        context.world_size,
        workers=workers(action),
        pin_memory=_pin(action),
    )
    return EvaluationData(
        table,
        loader,
        batch_size,
        (height, width),
        cfg.eval_class_ids or None,
        action.experiment.model.num_select,
        conf_threshold,
    )


def workers(action: Action) -> int:
    """Loading processes of this rank: `dataset.workers`, but no more than it has CPU cores."""
    return min(action.experiment.dataset.workers, action.context.cpus)


def _open_table(action: Action, sources: Sequence[Source]) -> Table:
    names = class_names([s.annotations for s in sources], action.experiment.dataset.num_classes)
    return build_table(sources, names)


def _pin(action: Action) -> bool:
    return action.experiment.dataset.pin_memory and action.context.device.type == "cuda"
