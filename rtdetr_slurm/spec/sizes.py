"""Image sizes: which ones the actions of a spec put through the detector. Pure."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from rtdetr_slurm.actions import ACTIONS, DEPLOY
from rtdetr_slurm.spec.dataset import scales_around
from rtdetr_slurm.spec.experiment import ExperimentConfig
from rtdetr_slurm.spec.fields import TRAINING
from rtdetr_slurm.spec.model import ModelConfig
from rtdetr_slurm.yaml_source import KeyPath, show

Size = tuple[int, int]
"""(height, width) in pixels."""

_AUGMENTATION: KeyPath = ("dataset", "augmentation")
_MULTI_SCALES: KeyPath = (*_AUGMENTATION, "multi_scales")


def complete_scales(data: Mapping[str, Any]) -> tuple[dict[str, Any], str | None]:
    """Let `multi_scales`, where it is not given, follow the `train_spatial_size` that is.

    Args:
        data: of a spec, as it was given.

    Returns:
        The data with both, and a line that says so.
    """
    dataset = data.get("dataset")
    augmentation = dataset.get("augmentation") if isinstance(dataset, dict) else None
    if not isinstance(augmentation, dict) or "multi_scales" in augmentation:
        return dict(data), None
    size = augmentation.get("train_spatial_size")
    if not isinstance(size, list) or [type(side) for side in size] != [int, int] or min(size) < 1:
        return dict(data), None
    scales = scales_around(*size)
    note = (
        f"dataset.augmentation.multi_scales: {show(scales[0])} to {show(scales[-1])}, around "
        f"train_spatial_size {show(size)}"
    )
    completed = {**augmentation, "multi_scales": scales}
    return {**data, "dataset": {**dataset, "augmentation": completed}}, note  # type: ignore[dict-item]


def training_sizes(experiment: ExperimentConfig) -> dict[Size, KeyPath]:
    """The sizes that training batches have, each with the value that says so."""
    augmentation = experiment.dataset.augmentation
    sizes: dict[Size, KeyPath] = {}
    for index, scale in enumerate(augmentation.multi_scales):
        height, width = (scale, scale) if isinstance(scale, int) else scale
        sizes.setdefault((height, width), (*_MULTI_SCALES, index))
    if not sizes or experiment.engine.recipe != "rtdetr":  # others end without multi_scales
        height, width = augmentation.train_spatial_size
        sizes.setdefault((height, width), (*_AUGMENTATION, "train_spatial_size"))
    return sizes


def scored_size(experiment: ExperimentConfig, action: str) -> tuple[Size, KeyPath] | None:
    """The size at which an action looks at images without training on them; None: at none, or at
    the only one that its engine takes."""
    row = ACTIONS[action]
    if row.program == DEPLOY:
        return None
    if row.trains or row.section in ("evaluate", "inference", "export", "quantize"):
        section = getattr(experiment, row.section)
        height, width = (
            getattr(section, "input_height", None),
            getattr(section, "input_width", None),
        )
        if height and width:
            return (height, width), (row.section, "input_height")
        height, width = experiment.dataset.augmentation.eval_spatial_size
        return (height, width), (*_AUGMENTATION, "eval_spatial_size")
    return None


def sizes_of(experiment: ExperimentConfig, action: str) -> Iterator[tuple[Size, KeyPath]]:
    """All sizes at which an action runs the detector."""
    if action in TRAINING:
        yield from training_sizes(experiment).items()
    if (scored := scored_size(experiment, action)) is not None:
        yield scored


def count_cells(model: ModelConfig, size: Size) -> int:
    """Cells of all feature maps that an image of this size has."""
    height, width = size
    return sum((height // stride) * (width // stride) for stride in model.feat_strides)
