"""How long a detector takes for a batch, as whoever calls it would wait for it.

Timed is a call from images on the detector's device to its output there, on the wall clock, the
device waited for before and after. Runs come in bursts with pauses between, so that a processor
that clocks down once it is warm, or is lent to somebody else for a moment, shows in the
percentiles and not in all of the numbers.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch

from rtdetr_slurm.vision.scoring import Predict
from rtdetr_slurm.vision.tradeoff import Latency


@dataclass(frozen=True)
class Pace:
    """How a batch size is timed, in seconds.

    Attributes:
        warm_up: of runs that do not count, one at least.
        bursts: of `burst` seconds of runs each, one run at least, with a `pause` before each.
        most: of runs in all, after which no further burst begins.
    """

    warm_up: float = 0.5
    bursts: int = 5
    burst: float = 0.4
    pause: float = 0.2
    most: float = 20.0


PACE = Pace()
"""For whoever wants numbers to be compared with others."""


def time_batches(
    predict: Predict,
    size: tuple[int, int],
    batch_sizes: Sequence[int],
    device: torch.device,
    pace: Pace,
) -> list[Latency]:
    """Time a detector at each batch size.

    Args:
        size: (height, width) of the images that it takes.
        device: that the images are on.
    """
    found = []
    for count in batch_sizes:
        generator = torch.Generator().manual_seed(count)
        images = torch.rand(count, 3, *size, generator=generator).to(device)
        _runs(predict, images, pace.warm_up)
        seconds: list[float] = []
        for _ in range(pace.bursts):
            time.sleep(pace.pause)
            seconds += _runs(predict, images, pace.burst)
            if sum(seconds) > pace.most:
                break
        found.append(summarised(count, seconds))
    return found


def _runs(predict: Predict, images: torch.Tensor, long: float) -> list[float]:
    """Seconds of each run, of as many as begin within `long` seconds; one at least."""
    seconds: list[float] = []
    while not seconds or sum(seconds) < long:
        _wait_for(images.device)
        begun = time.perf_counter()
        with torch.no_grad():
            predict(images)
        _wait_for(images.device)
        seconds.append(time.perf_counter() - begun)
    return seconds


def _wait_for(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def summarised(batch_size: int, seconds: Sequence[float]) -> Latency:
    """The numbers of some runs; a percentile is a run that was, never one between two."""
    p50, p90, p99 = 1000 * np.percentile(seconds, [50, 90, 99], method="higher")
    each_second = batch_size * len(seconds) / sum(seconds)
    return Latency(batch_size, len(seconds), float(p50), float(p90), float(p99), each_second)
