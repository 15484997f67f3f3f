"""What quantized layers do to the detections, and how much of the work they are."""

from __future__ import annotations

import copy
import time
from collections.abc import Callable, Iterable, Mapping
from contextlib import AbstractContextManager

import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from rtdetr_slurm.engine.quantization.detector import layers_of, put_in_place
from rtdetr_slurm.engine.quantization.layers import Quantized
from rtdetr_slurm.spec.quantization import INT8, LayerFormat
from rtdetr_slurm.vision.onnx_metadata import LOGITS
from rtdetr_slurm.vision.parity import differences_of
from rtdetr_slurm.vision.scoring import Predict

LOOKED_AT = 8
"""Images that layers are compared on."""
SECONDS = 600.0
"""At most so long, of all layers together; those after it stay unmeasured."""


def movement(reference: Mapping[str, Tensor], other: Mapping[str, Tensor]) -> float:
    """How far detections have moved: each from its nearest counterpart in the other output, in
    scores and coordinates in 0..1, as a mean in which a detection weighs its score."""
    weights = reference[LOGITS].sigmoid().amax(-1).flatten().float().cpu()
    return float((weights * differences_of(reference, other)).sum() / weights.sum())


@torch.no_grad()
def sensitivities(
    reference: Mapping[str, Tensor],
    images: Tensor,
    names: Iterable[str],
    alone: Callable[[str], AbstractContextManager[Predict]],
    stop: Callable[[], bool],
    seconds: float = SECONDS,
) -> dict[str, float]:
    """The movement that each layer causes that is the only quantized one.

    Args:
        reference: output on the images without any.
        names: of the layers; of what the time does not suffice for the last stay out.
        alone: the detector with that layer alone quantized.
        stop: whether to stop.
    """
    end, found = time.monotonic() + seconds, {}
    for name in names:
        if stop() or time.monotonic() > end:
            break
        with alone(name) as predict:
            found[name] = movement(reference, predict(images))
    return found


@torch.no_grad()
def multiply_adds(model: nn.Module, image: Tensor) -> tuple[int, dict[str, int]]:
    """Of one image, [1, 3, H, W]: in all, and by layer that can be quantized and runs at all."""
    layers = layers_of(model)
    # A quantized layer is run as a module wherever it is; a plain one may only lend its weights.
    placeholders = copy.deepcopy(model)
    for name in layers:
        put_in_place(
            placeholders, name, Quantized(layers[name], LayerFormat(INT8)).to(image.device)
        )
    with FlopCounterMode(display=False) as counter:
        placeholders(image)
    counted = {
        name.partition(".")[2]: sum(operators.values()) // 2
        for name, operators in counter.get_flop_counts().items()
    }
    by_layer = {name: counted[name] for name in layers if counted.get(name)}
    return counter.get_total_flops() // 2, by_layer
