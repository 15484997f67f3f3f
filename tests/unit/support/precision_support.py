"""Small ONNX graphs, written down and run; what INT8 is made with, without a session."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager

import numpy as np
import onnx
import onnxruntime
import torch
from numpy.typing import NDArray
from onnx import ModelProto, parser
from torch import Tensor

from rtdetr_slurm.deploy.precision.calibration import Calibration, CalibrationRecord
from rtdetr_slurm.vision.parity import differences_of
from rtdetr_slurm.vision.scoring import Predict


def graph(text: str, initializer: Mapping[str, NDArray[np.float32]] | None = None) -> ModelProto:
    """A graph at opset 17 whose nodes are called by their outputs."""
    model = parser.parse_model(f'<ir_version: 8, opset_import: ["" : 17]> {text}')
    for node in model.graph.node:
        node.name = node.output[0]
    for name, values in (initializer or {}).items():
        model.graph.initializer.append(onnx.numpy_helper.from_array(values, name))
    return model


def run(model: ModelProto, **inputs: NDArray[np.float32]) -> list[NDArray[np.float32]]:
    """What ONNX Runtime makes of a graph that ONNX's checker has seen."""
    onnx.checker.check_model(model, full_check=True)
    options = onnxruntime.SessionOptions()
    options.add_session_config_entry("session.disable_quant_qdq", "1")
    session = onnxruntime.InferenceSession(model.SerializeToString(), options)
    found: list[NDArray[np.float32]] = session.run(None, inputs)
    return found


SIZE = (64, 64)


def images(count: int, size: tuple[int, int] = SIZE) -> Iterator[Tensor]:
    yield torch.rand(count, 3, *size, generator=torch.Generator().manual_seed(0))


def calibration(
    score: Callable[[Predict], float] | None = None, size: tuple[int, int] = SIZE
) -> Calibration:
    """On images of noise; what is compared is the busiest layer, for all of them."""

    def compare(
        reference: Predict,
        pixels: Tensor,
        names: list[str],
        alone: Callable[[str], AbstractContextManager[Predict]],
    ) -> dict[str, float]:
        with alone(names[0]) as detector:
            moved = differences_of(reference(pixels), detector(pixels)).mean()
        return dict.fromkeys(names, 1e-3) | {names[0]: float(moved)}

    return Calibration(
        record=CalibrationRecord("ab" * 32),
        images=2,
        batches=lambda count: images(count, size),
        compare=compare,
        score=score,
        limit=1.0,
        save=lambda _: None,
        say=lambda _: None,
    )
