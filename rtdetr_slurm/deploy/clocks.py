"""What a detector is timed with: the clock, the processor, and how fast both go."""

from __future__ import annotations

import os
import platform
import shutil
import subprocess
import time
from pathlib import Path
from typing import Any

import torch

_CLOCKS = ("clocks.sm", "clocks.max.sm", "clocks.mem", "clocks.max.mem", "temperature.gpu")
"""What nvidia-smi is asked for: MHz, and degrees Celsius."""


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
