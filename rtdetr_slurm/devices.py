"""From gpu_ids to devices: the one rule. Standard library only."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from rtdetr_slurm.contract import Env
from rtdetr_slurm.errors import SiteError


def chosen_devices(gpu_ids: Sequence[int], visible: str | None) -> str:
    """CUDA_VISIBLE_DEVICES for a start that no scheduler has given devices to.

    Args:
        gpu_ids: of the spec, counted within `visible`.
        visible: CUDA_VISIBLE_DEVICES as it is; None: all devices of the machine, by number. Empty:
            no device at all, which is somebody's wish and stays.

    Raises:
        SiteError: an id is beyond the devices that are visible.
    """
    if visible is None:
        return ",".join(map(str, gpu_ids))
    if not visible.strip():
        return ""
    devices = [device.strip() for device in visible.split(",") if device.strip()]
    if max(gpu_ids) >= len(devices):
        raise SiteError(
            f"gpu_ids {list(gpu_ids)} need at least {max(gpu_ids) + 1} devices, but "
            f"{Env.CUDA_VISIBLE_DEVICES}={visible!r} lists {len(devices)}"
        )
    return ",".join(devices[i] for i in gpu_ids)


def nvidia_devices(dev: Path = Path("/dev")) -> list[Path]:
    """The device files of this machine's GPUs."""
    return sorted(dev.glob("nvidia[0-9]*"))


def count_visible(visible: str | None) -> int:
    """How many GPUs a process with this CUDA_VISIBLE_DEVICES sees; None: all of the machine."""
    if visible is None:
        return len(nvidia_devices())
    return len([device for device in visible.split(",") if device.strip()])
