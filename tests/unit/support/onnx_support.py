"""Small detectors as ONNX files, exported for real."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from engine_support import Workspace, fresh_detector, tiny_spec
from torch import Tensor, nn

from rtdetr_slurm.engine.models import RTDETR, build_model
from rtdetr_slurm.engine.onnx_graph import save, trace
from rtdetr_slurm.spec.model import ModelConfig
from rtdetr_slurm.vision.onnx_metadata import OnnxMetadata

METADATA = OnnxMetadata(
    version="1.2.3",
    checkpoint="model_epoch_003.pth",
    checkpoint_sha256="ab" * 32,
    epoch=3,
    classes={1: "red blood cell", 2: "Thrombozyt"},
    thresholds={"red blood cell": 0.25},
    num_select=10,
    preserve_aspect_ratio=False,
)


def scramble(model: nn.Module, seed: int = 0) -> None:
    """Weights as of a trained detector: its norms do something, its outputs depend on the input."""
    generator = torch.Generator().manual_seed(seed)
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.weight.data.uniform_(0.5, 1.2, generator=generator)
            module.running_mean.normal_(0, 0.1, generator=generator)
            module.running_var.uniform_(0.5, 1.5, generator=generator)
    for name, parameter in model.named_parameters():
        if "head" in name or "sampling_offsets" in name:
            parameter.data.normal_(0, 0.1, generator=generator)


def scrambled_weights(workspace: Workspace) -> Path:
    """weights.pth of a workspace, as of a trained detector."""
    model, path = fresh_detector(workspace.session()), workspace.root / "weights.pth"
    scramble(model)
    torch.save(model.state_dict(), path)
    return path


def tiny_detector(num_classes: int = 3, **changes: Any) -> RTDETR:
    torch.manual_seed(0)
    options = tiny_spec(Path("/d"), Path("/r"))["model"] | changes
    model = build_model(ModelConfig(**options), num_classes).eval()
    scramble(model)
    return model


def exported(
    folder: Path,
    model: RTDETR,
    size: tuple[int, int],
    batch: int | None = None,
    opset: int = 17,
    metadata: dict[str, str] | None = None,
) -> Path:
    """The detector in a file of `folder`."""
    properties = METADATA.properties() if metadata is None else metadata
    path = folder / "rtdetr.onnx"
    save(trace(model, size, batch=batch, opset=opset, metadata=properties), path)
    return path


def outputs(model: RTDETR, images: Tensor) -> dict[str, Tensor]:
    with torch.no_grad():
        return dict(model(images))
