"""Mixed precision, and how exact and repeatable the kernels are."""

from __future__ import annotations

import os
from contextlib import AbstractContextManager, nullcontext
from typing import TYPE_CHECKING, Any

import torch

from rtdetr_slurm.errors import RequestError

if TYPE_CHECKING:
    from rtdetr_slurm.spec.train import CudnnConfig, TrainConfig


def training_precision(cfg: TrainConfig, device: torch.device) -> str:
    """What a training computes in: fsdp in fp16 on CUDA, as in TAO, and in fp32 on CPU; ddp in what
    the spec says."""
    if cfg.distributed_strategy == "ddp":
        return cfg.precision
    return "fp16" if device.type == "cuda" else "fp32"


def autocast(precision: str, device: torch.device) -> AbstractContextManager[Any]:
    """Mixed precision for the forward pass: nothing for fp32."""
    if precision == "fp32":
        return nullcontext()
    dtype = torch.bfloat16 if precision == "bf16" else torch.float16
    return torch.autocast(device.type, dtype=dtype)


def check_precision(precision: str, device: torch.device) -> None:
    """Refuse what the device cannot do.

    Raises:
        RequestError: saying what it can.
    """
    if precision == "fp16" and device.type == "cpu":
        raise RequestError(
            "train.precision fp16 needs a CUDA device; on CPU use fp32 or bf16 "
            "(fp16 would need loss scaling, which CPUs do not support here)"
        )
    if precision == "bf16" and device.type == "cuda" and not torch.cuda.is_bf16_supported():
        raise RequestError(
            f"train.precision bf16 is not supported by {torch.cuda.get_device_name(device)}; "
            "use fp16 or fp32"
        )


def set_cudnn(cfg: CudnnConfig) -> None:
    """cuDNN's switches; `deterministic` asks torch for repeatable kernels where it has them."""
    torch.backends.cudnn.benchmark = cfg.benchmark
    torch.backends.cudnn.deterministic = cfg.deterministic
    if cfg.deterministic:
        os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
        torch.use_deterministic_algorithms(True, warn_only=True)
        torch.utils.deterministic.fill_uninitialized_memory = False  # type: ignore[attr-defined]
