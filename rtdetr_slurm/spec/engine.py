"""`engine`: what this engine does beyond NVIDIA TAO's fields. Ours; all of it is off by default."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from rtdetr_slurm.spec.fields import TRAIN, TRAINING, Section, field

Weight = Annotated[float, Field(ge=0.0)]
RecipeName = Literal["rtdetr", "rtdetrv2", "deim"]


class EarlyStoppingConfig(Section):
    """When training ends before num_epochs."""

    patience: int = field(
        0,
        ge=0,
        honoured_by=TRAINING,
        description="Validations in a row (of train_loss: epochs) without a better value after "
        "which training ends; 0 never ends it.",
    )
    monitor: Literal["val_mAP", "val_mAP50", "val_loss", "train_loss"] = field(
        "val_mAP", honoured_by=TRAINING, description="Value that has to get better."
    )
    min_delta: float = field(
        0.0,
        ge=0.0,
        honoured_by=TRAINING,
        description="By how much more than this a value has to be better to count as such.",
    )


class SamplingConfig(Section):
    """How often training images are drawn."""

    class_weights: dict[str, Weight] = field(
        {},
        honoured_by=TRAINING,
        description="Class name to weight; an image is drawn in proportion to the largest weight "
        "of its classes. Classes that are not listed have 1, and so have images without boxes.",
    )
    source_weights: list[Weight] = field(
        [],
        honoured_by=TRAINING,
        description="One weight for each of dataset.train_data_sources; how often an image of one "
        "is drawn in relation to those of others.",
    )


class EngineConfig(Section):
    """Options of this engine."""

    recipe: RecipeName = field(
        "rtdetr",
        honoured_by=TRAINING,
        description="Published training recipe. rtdetr: RT-DETR's. rtdetrv2: a warm-up, and "
        "augmentations end before training does. deim: that, dense one-to-one matching by mosaic "
        "and mixup, matchability-aware loss in place of varifocal loss, and a learning rate that "
        "is flat and then falls along a cosine.",
    )
    accumulate: int = field(
        1,
        ge=1,
        honoured_by=TRAINING,
        description="Batches whose gradients are added up for one optimizer step; the effective "
        "batch is dataset.batch_size times this times the number of GPUs.",
    )
    batch: Literal["fixed", "auto"] = field(
        "fixed",
        honoured_by=TRAINING,
        description="auto computes the effective batch in parts of the largest size that fits the "
        "GPU's memory, which is tried out once for each image size and kind of GPU.",
    )
    elastic: bool = field(
        False,
        honoured_by=TRAINING,
        description="Go on from a checkpoint on another number of GPUs, also in the middle of an "
        "epoch, with the same images per epoch and the same effective batch.",
    )
    compile: bool = field(
        False,
        honoured_by=TRAIN,
        description="Compile backbone and encoder with torch.compile, which takes minutes for each "
        "image size when it first comes.",
    )
    early_stopping: EarlyStoppingConfig = field(
        EarlyStoppingConfig, switch="patience", description="When training ends early."
    )
    sampling: SamplingConfig = field(SamplingConfig, description="How often images are drawn.")
