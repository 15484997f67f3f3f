"""Where the GPUs are short of memory for what a spec asks, as far as a profile tells. Pure."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

from rtdetr_slurm.actions import get_action
from rtdetr_slurm.plan.model import Stage
from rtdetr_slurm.spec.memory import LEAST_GB, images_that_fit
from rtdetr_slurm.spec.sizes import training_sizes

if TYPE_CHECKING:
    from rtdetr_slurm.site.profile import Gpu, Site
    from rtdetr_slurm.spec import ExperimentConfig

_SCALED_UP = 1.25**2
"""So much larger than its own size may training make an image, by default."""

MEMORY_GB = {
    **{"p4": 8, "k80": 12, "gtx1080ti": 11, "rtx2080ti": 11, "p100": 16, "t4": 16, "a2": 16},
    **{"rtxa4000": 16, "l4": 24, "a10": 24, "a30": 24, "rtxa5000": 24, "rtx3090": 24},
    **{"rtx4090": 24, "rtxa6000": 48, "a40": 48, "l40": 48, "l40s": 48, "h100": 80, "h200": 141},
}
"""GiB of GPUs that come in one size only, by their type without separators and maker's names."""


def gpu_memory_gb(gpu: Gpu) -> float | None:
    """Memory of each GPU as the profile says it, else by its type; None: nobody knows."""
    if gpu.memory_gb is not None or gpu.type is None:
        return gpu.memory_gb
    word = re.sub(r"[^a-z0-9]|nvidia|tesla|geforce", "", gpu.type.lower())
    return MEMORY_GB.get(word)


def notes_on_hardware(
    stages: Sequence[Stage], site: Site, experiment: ExperimentConfig
) -> Iterator[str]:
    """Trainings whose GPUs have little memory, or too little for the batch."""
    for stage in stages:
        action = get_action(stage.action)
        memory = gpu_memory_gb(site.for_role(action.role).gpu)
        if (
            not action.trains
            or not stage.runs_action
            or stage.launch.accelerator != "cuda"
            or memory is None
        ):
            continue
        if memory < LEAST_GB:
            yield (
                f"the GPUs of stage {stage.name} have {memory:g} GiB (gpu in the site profile); "
                f"training wants at least {LEAST_GB}: take others, or a small model and batch"
            )
        yield from _note_on_batch(experiment, memory)


def _note_on_batch(experiment: ExperimentConfig, memory: float) -> Iterator[str]:
    train, batch = experiment.train, experiment.dataset.batch_size
    height, width = experiment.dataset.augmentation.train_spatial_size
    largest = max(height * width for height, width in training_sizes(experiment))
    pixels = max(height * width, largest / _SCALED_UP)
    fits = images_that_fit(
        memory,
        pixels,
        half=train.precision != "fp32",
        checkpointed=train.activation_checkpoint,
    )
    if batch <= fits or experiment.engine.batch == "auto":
        return
    ways = ["lower it"]
    ways += ["set train.precision to bf16"] if train.precision == "fp32" else []
    ways += [] if train.activation_checkpoint else ["turn train.activation_checkpoint on"]
    ways += ["train at a smaller size"]
    yield (
        f"dataset.batch_size: {batch} images of {height}×{width} may not fit a GPU of {memory:g} "
        f"GiB; about {max(1, int(fits))} do: {', or '.join(ways)}"
    )
