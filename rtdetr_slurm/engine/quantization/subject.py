"""What is quantized: the detector of a checkpoint, or one in an ONNX file."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import onnx
import torch
from torch import Tensor, nn

from rtdetr_slurm.contract import QUANTIZE_VERSION
from rtdetr_slurm.engine.detector import TrainedDetector
from rtdetr_slurm.engine.models import RTDETR
from rtdetr_slurm.engine.quantization import detector as torch_side
from rtdetr_slurm.engine.quantization import measure, onnx_file
from rtdetr_slurm.engine.quantization.libraries import (
    Layers,
    by_modelopt,
    by_torchao,
    library_version,
)
from rtdetr_slurm.engine.training.checkpoint import save_checkpoint
from rtdetr_slurm.spec.quantization import STATIC
from rtdetr_slurm.spec.quantize import QuantizeConfig
from rtdetr_slurm.vision.onnx_runtime import OnnxDetector
from rtdetr_slurm.vision.scoring import Predict

Images = Callable[[], Iterator[Tensor]]
"""Batches that calibrate, float32 [B, 3, H, W] in 0..1; opened anew each time."""


@dataclass(frozen=True)
class Candidate:
    """A layer that can be quantized.

    Attributes:
        kinds: names of its class; the first is the one to show.
        multiply_adds: of one image; 0: it does not run.
    """

    name: str
    kinds: tuple[str, ...]
    multiply_adds: int


class Subject(Protocol):
    """A detector to quantize.

    Attributes:
        size: (height, width) of its images.
        before, after: it, and what was made of it.
        candidates: its layers.
        multiply_adds: of one image, in all.
    """

    size: tuple[int, int]
    epoch: int | None
    candidates: list[Candidate]
    multiply_adds: int

    @property
    def before(self) -> nn.Module: ...

    @property
    def after(self) -> nn.Module: ...

    def quantize(self, layers: Layers, images: Images) -> list[str]:
        """Make `after`; returns the layers that the library has left as they were."""

    def alone(self, name: str) -> AbstractContextManager[Predict]:
        """A context with the detector in which one layer alone is quantized."""

    def save(self, path: Path, key: str | None) -> None:
        """Write what was made, encrypted with the key where there is one."""


class CheckpointSubject:
    """The detector of a checkpoint, as it is deployed: fused."""

    def __init__(
        self,
        trained: TrainedDetector,
        config: QuantizeConfig,
        resolved: Mapping[str, Any],
        size: tuple[int, int],
        device: torch.device,
        facts: Mapping[str, Any],
    ) -> None:
        self.config, self.resolved, self.facts, self.size = config, resolved, facts, size
        self.classes, self.epoch = trained.classes, trained.epoch
        self.before: RTDETR = trained.model.fuse()
        self.after = self.before
        self.layers: Layers = {}
        image = torch.zeros(1, 3, *size, device=device)
        self.multiply_adds, counts = measure.multiply_adds(self.before, image)
        self.candidates = [
            Candidate(name, (type(layer).__name__,), counts.get(name, 0))
            for name, layer in torch_side.layers_of(self.before).items()
        ]

    def quantize(self, layers: Layers, images: Images) -> list[str]:
        def run(model: nn.Module) -> None:
            for batch in images():
                model(batch)

        if self.config.mode == STATIC:
            decided = by_modelopt(self.before, layers, self.config.algorithm, run)
        else:
            decided = by_torchao(self.before, layers)
        self.layers = layers
        self.after = torch_side.quantized(self.before, layers, decided)
        return []

    @contextmanager
    def alone(self, name: str) -> Iterator[Predict]:
        with torch_side.alone(self.before, self.after, name) as model:
            yield model

    def save(self, path: Path, key: str | None) -> None:
        said = self.config.model_dump(include=torch_side.MADE_WITH)
        quantization = {
            "schema_version": QUANTIZE_VERSION,
            "library": library_version(self.config.backend),
            "spec": said,
            "layers": torch_side.described(self.layers),
            **self.facts,
        }
        content = {
            "model": self.after.state_dict(),
            "quantization": quantization,
            "epoch": self.epoch,
            "classes": self.classes,
            "spec": self.resolved,
        }
        save_checkpoint(path, content, key)


class OnnxSubject:
    """The detector in an ONNX file, on the CPU."""

    def __init__(self, path: Path, opened: OnnxDetector, config: QuantizeConfig) -> None:
        self.path, self.config, self.size = path, config, opened.size
        self.epoch = opened.metadata.epoch
        self.before: nn.Module = Running(opened)
        self.after = self.before
        self.graph = onnx.load(path)
        self.made = self.graph
        self.nodes = onnx_file.nodes_of(self.graph)
        self.multiply_adds, counts = onnx_file.multiply_adds(self.graph, self.nodes)
        self.candidates = [
            Candidate(name, onnx_file.KINDS[node.op_type], counts[name])
            for name, node in self.nodes.items()
        ]

    def quantize(self, layers: Layers, images: Images) -> list[str]:
        (number,) = {one.weights for one in layers.values()}
        pixels = np.concatenate([batch.cpu().numpy() for batch in images()])
        nodes = {self.nodes[name].name: name for name in layers}
        self.made = onnx_file.quantize_file(
            self.path, [*nodes], number, self.config.algorithm, pixels
        )
        self.after = Running(onnx_file.opened(self.made))
        done = onnx_file.quantized_nodes(self.made)
        return [name for node, name in nodes.items() if node not in done]

    @contextmanager
    def alone(self, name: str) -> Iterator[Predict]:
        with onnx_file.alone(self.made, self.nodes[name].name) as detector:
            yield detector

    def save(self, path: Path, key: str | None) -> None:
        assert key is None  # modelopt has worked on files
        onnx_file.save(self.made, path)


class Running(nn.Module):
    """A detector of another runtime, to be scored as a module is."""

    def __init__(self, predict: Predict) -> None:
        super().__init__()
        self.predict = predict

    def forward(self, images: Tensor) -> Mapping[str, Tensor]:
        return self.predict(images)
