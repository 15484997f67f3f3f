"""The GPU that an engine is built for, and whether an engine fits the one that is here."""

from __future__ import annotations

from pathlib import Path

import torch

from rtdetr_slurm.deploy.record import EngineRecord
from rtdetr_slurm.deploy.tensorrt import TensorRt
from rtdetr_slurm.errors import RequestError, SiteError


def capability_here(device: torch.device) -> str | None:
    """Compute capability of a GPU, as 8.9; None where the device is none."""
    if device.type != "cuda":
        return None
    major, minor = torch.cuda.get_device_capability(device)
    return f"{major}.{minor}"


def capability_to_build_for(library: TensorRt, asked: str | None, device: torch.device) -> str:
    """The compute capability of the GPU that an engine is built for.

    Args:
        asked: by the user; None: that of the GPU that is here.

    Raises:
        SiteError: there has to be a GPU, and is none.
        RequestError: nobody says which, or the library does not build for it.
    """
    here, known = capability_here(device), library.capabilities
    if known is None:
        if here is None:
            raise SiteError(
                f"{library} builds on the GPU that the engine is for, and this process has none; "
                "submit gen_trt_engine to a partition with that GPU, or build for it with "
                "--runtime tensorrt_rtx (job.runtime)"
            )
        known = (here,)
    wanted = asked or here
    if wanted is None:
        raise RequestError(
            "nobody says for which GPU to build: this process has none. Name its compute "
            f"capability, --compute-capability N.N (job.compute_capability); allowed: "
            f"{', '.join(known)}"
        )
    if wanted not in known:
        what = "--compute-capability: found" if asked else "the GPU here has compute capability"
        raise RequestError(f"{what} {wanted}; {library} builds here for {', '.join(known)}")
    return wanted


def see_that_it_fits(
    path: Path, record: EngineRecord, library: TensorRt, device: torch.device
) -> None:
    """Before the engine is loaded: it is of this version and for this GPU.

    Raises:
        SiteError: there is no GPU.
        RequestError: it is not; says what it fits, and what to do.
    """
    instead = (
        "score the ONNX file that it was built from, on any machine, with --runtime onnxruntime"
    )
    again = f"build it again here with gen_trt_engine from {record.onnx}, or {instead}"
    here = capability_here(device)
    if here is None:
        raise SiteError(
            f"{path} runs on a GPU of compute capability {record.compute_capability}, and this "
            f"process has none; {instead}"
        )
    if library.version != record.runtime_version:
        raise RequestError(
            f"{path} was built by {record.runtime} {record.runtime_version} and runs in that "
            f"version alone; here is {library.version}: {again}"
        )
    if here != record.compute_capability:
        built_on = f" ({record.gpu})" if record.gpu else ""
        raise RequestError(
            f"{path} was built for GPUs of compute capability {record.compute_capability}"
            f"{built_on}; here is {here} ({torch.cuda.get_device_name(device)}): {again}"
        )
