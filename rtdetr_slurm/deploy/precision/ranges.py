"""How large the values of a graph's tensors are over some images, and what codes are to span."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator

import numpy as np
import onnxruntime
import torch
from numpy.typing import NDArray
from onnx import ModelProto, ValueInfoProto
from torch import Tensor

from rtdetr_slurm.deploy.precision.int8 import LARGEST
from rtdetr_slurm.errors import ActionError
from rtdetr_slurm.vision.onnx_metadata import INPUT

_BINS = 2048
_ERRORS_ONLY = 3


class Histogram:
    """Magnitudes of a tensor's values, in bins that grow together when values lie beyond them."""

    def __init__(self) -> None:
        self.counts: NDArray[np.float64] = np.zeros(_BINS)
        self.top = 0.0
        self.largest = 0.0

    def add(self, values: NDArray[np.float32]) -> None:
        """Count more values."""
        magnitudes = np.abs(values)
        largest = float(magnitudes.max(initial=0.0))
        self.largest = max(self.largest, largest)
        self.top = self.top or largest
        while self.top < largest:
            pairs = self.counts.reshape(-1, 2).sum(axis=1)
            self.counts, self.top = np.concatenate([pairs, np.zeros(_BINS // 2)]), 2 * self.top
        if self.top > 0:
            self.counts += np.histogram(magnitudes, _BINS, (0.0, self.top))[0]

    def best_range(self) -> float:
        """The magnitude up to which codes of 8 bits have the least squared error, of rounding up to
        it and of clipping beyond."""
        centres = (np.arange(_BINS) + 0.5) * self.top / _BINS
        ranges = np.linspace(1 / 16, 1, 121) * self.largest
        beyond = np.maximum(centres - ranges[:, None], 0)
        clipped = beyond**2 @ self.counts
        rounded = (ranges / LARGEST) ** 2 / 12 * ((beyond == 0) @ self.counts)
        return float(ranges[np.argmin(clipped + rounded)])


def measured_ranges(
    model: ModelProto, tensors: Collection[str], batches: Iterable[Tensor]
) -> dict[str, float]:
    """What codes of 8 bits are to span of each tensor.

    Args:
        batches: float32 [B, 3, H, W] in 0..1.

    Raises:
        ActionError: a value is no number.
    """
    watched = ModelProto()
    watched.CopyFrom(model)
    names = sorted({*tensors} - {INPUT})
    watched.graph.output.extend(ValueInfoProto(name=name) for name in names)
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = torch.get_num_threads()
    options.log_severity_level = _ERRORS_ONLY
    session = onnxruntime.InferenceSession(
        watched.SerializeToString(), options, providers=["CPUExecutionProvider"]
    )
    found = {name: Histogram() for name in (INPUT, *names)}
    (batch,) = (one.shape[0] for one in session.get_inputs())
    for images in batches if isinstance(batch, str) else _of_size(batches, batch):
        pixels = images.cpu().numpy()
        for name, values in zip(found, (pixels, *session.run(names, {INPUT: pixels})), strict=True):
            if not np.isfinite(values).all():
                raise ActionError(
                    f"the ONNX file computes what is no number (NaN or infinite) in {name}: its "
                    "weights are damaged, or what it computes overflows"
                )
            found[name].add(values)
    return {name: one.best_range() for name, one in found.items()}


def _of_size(batches: Iterable[Tensor], size: int) -> Iterator[Tensor]:
    """The same images in batches of `size`; the last one has the first of its images again."""
    waiting: list[Tensor] = []
    for images in batches:
        waiting += images
        while len(waiting) >= size:
            yield torch.stack(waiting[:size])
            del waiting[:size]
    if waiting:
        yield torch.stack([waiting[i % len(waiting)] for i in range(size)])
