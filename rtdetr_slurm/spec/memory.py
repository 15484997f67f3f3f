"""How many images fit a GPU's memory: rules of thumb. Pure."""

from __future__ import annotations

LEAST_GB = 16
"""Below this no RT-DETR of usual size is trained in comfort."""
_IMAGES, _SIDE = 8, 640
"""So many images of that side fit LEAST_GB in fp32 with activation checkpointing, multi-scale
training up to 1.25 times that side included."""
_HALF_PRECISION, _NO_CHECKPOINTING = 1.5, 0.75
"""What else changes how many images fit."""


def images_that_fit(memory_gb: float, pixels: float, *, half: bool, checkpointed: bool) -> float:
    """How many images a GPU trains on at a time.

    Args:
        memory_gb: of the GPU, in GiB.
        pixels: of an image in training, without what multi-scale training adds.
        half: in bf16 or fp16.
        checkpointed: activations of the backbone are computed again in the backward pass.
    """
    fits = _IMAGES * memory_gb / LEAST_GB * _SIDE**2 / pixels
    fits *= _HALF_PRECISION if half else 1.0
    return fits * (1.0 if checkpointed else _NO_CHECKPOINTING)
