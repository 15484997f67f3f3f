"""How long a detector takes for a batch, as whoever calls it would wait for it.

Timed is a call from images on the detector's device to its output there, on the wall clock, the
device waited for before and after. Runs come in bursts with pauses between, so that a processor
that clocks down once it is warm, or is lent to somebody else for a moment, shows in the
percentiles and not in all of the numbers.
"""

from __future__ import annotations

import os
import platform
import shutil
import subprocess
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from rtdetr_slurm.vision.scoring import Predict
from rtdetr_slurm.vision.tradeoff import Latency

_CLOCKS = ("clocks.sm", "clocks.max.sm", "clocks.mem", "clocks.max.mem", "temperature.gpu")
"""What nvidia-smi is asked for: MHz, and degrees Celsius."""


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


def batch_sizes(low: int, high: int, *also: int) -> list[int]:
    """The ends of a range of batch sizes, the powers of two in it, and what else is in it."""
    powers = [2**n for n in range(high.bit_length())]
    return sorted({low, high, *(n for n in (*powers, *also) if low <= n <= high)})


# --- what it was timed with ------------------------------------------------------------------
def clock_facts() -> dict[str, Any]:
    """The clock, and the processor that all of it ran beside."""
    clock = time.get_clock_info("perf_counter")
    return {
        "clock": f"time.perf_counter ({clock.implementation}, resolution {clock.resolution:g} s)",
        "cpu": cpu_model(),
        "cpus": len(os.sched_getaffinity(0)),
        "threads": torch.get_num_threads(),
    }


def cpu_model(path: Path = Path("/proc/cpuinfo")) -> str:
    """The processor as its maker calls it, and what it is clocked at now, where the system says."""
    try:
        lines = [line.partition(":")[::2] for line in path.read_text().splitlines()]
    except OSError:
        lines = []
    said = {name.strip(): value.strip() for name, value in reversed(lines)}
    model = said.get("model name") or platform.machine()
    return f"{model}, at {said['cpu MHz']} MHz" if "cpu MHz" in said else model


def gpu_clocks(device: torch.device) -> dict[str, Any] | None:
    """What a GPU is clocked at now, and could be; None of a CPU. `unknown` says why there is
    nothing else."""
    if device.type != "cuda":
        return None
    program = shutil.which("nvidia-smi")
    if program is None:
        return {"unknown": "nvidia-smi is not on this machine's path"}
    which = f"GPU-{torch.cuda.get_device_properties(device).uuid}"
    query = [f"--query-gpu={','.join(_CLOCKS)}", "--format=csv,noheader,nounits"]
    try:
        done = subprocess.run(
            [program, f"--id={which}", *query], capture_output=True, text=True, timeout=20
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        return {"unknown": f"nvidia-smi: {error}"}
    return parse_clocks(done.stdout) if not done.returncode else {"unknown": done.stdout.strip()}


def parse_clocks(answer: str) -> dict[str, Any]:
    """nvidia-smi's answer for one GPU; None for what it does not tell."""
    values = [value.strip() for value in answer.strip().split(",")]
    if len(values) != len(_CLOCKS):
        return {"unknown": f"nvidia-smi said {answer.strip()!r}"}
    return {
        name: int(value) if value.isdecimal() else None
        for name, value in zip(_CLOCKS, values, strict=True)
    }
