"""A deployed detector in whatever file and runtime: a `Predict` that says what it is."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import onnx
import onnxruntime
import torch
from onnx import ModelProto, TensorProto
from torch import Tensor

from rtdetr_slurm.cipher import decrypted
from rtdetr_slurm.contract import ONNX_SUFFIX
from rtdetr_slurm.deploy.record import (
    EngineRecord,
    Precision,
    read_record,
    verified,
)
from rtdetr_slurm.deploy.targets import see_that_it_fits
from rtdetr_slurm.deploy.tensorrt import open_tensorrt
from rtdetr_slurm.errors import RequestError
from rtdetr_slurm.runs.artefacts import engine_record
from rtdetr_slurm.vision.onnx_metadata import OnnxMetadata
from rtdetr_slurm.vision.onnx_runtime import open_onnx
from rtdetr_slurm.vision.scoring import Predict

ONNX_RUNTIME = "onnxruntime"


@dataclass(frozen=True)
class Runtime:
    """What runs a detector: the name of its Python module, and its version."""

    name: str
    version: str

    def __str__(self) -> str:
        return f"{self.name} {self.version}"


@dataclass(frozen=True)
class Detector:
    """A `Predict`; see `open_detector`.

    Attributes:
        size: (height, width) of the images that it takes.
        num_queries, num_classes: Q and C of its output.
        max_batch: images that it takes at once; None: any number. More are cut into batches.
        record: of the engine; None of an ONNX file.
    """

    metadata: OnnxMetadata
    size: tuple[int, int]
    num_queries: int
    num_classes: int
    runtime: Runtime
    precision: Precision
    max_batch: int | None
    record: EngineRecord | None
    _predict: Predict

    def __call__(self, images: Tensor) -> Mapping[str, Tensor]:
        return self._predict(images)


def open_detector(
    path: Path,
    runtime: str | None,
    device: torch.device,
    key: str | None = None,
    stated: OnnxMetadata | None = None,
) -> Detector:
    """The detector in an engine file that gen_trt_engine has written, or in an ONNX file.

    An engine is compared with its record, and its record with this machine, before it is loaded.

    Args:
        runtime: one of contract.RUNTIMES; None: what the file is for. ONNX Runtime in place of the
            runtime of an engine runs the ONNX file that the engine was built from, on the CPU.
        key: of files that are encrypted.
        stated: what is known of an ONNX file that says nothing of itself; None: that is an error.

    Raises:
        RequestError: the file is missing, damaged, or for another runtime, version or GPU; says
            what to do.
        SiteError: the runtime is not installed, or has no GPU to run on.
    """
    if not path.is_file():
        raise RequestError(f"{path} does not exist")
    if path.suffix == ONNX_SUFFIX:
        if runtime not in (None, ONNX_RUNTIME):
            raise RequestError(
                f"{path} is an ONNX file, and {runtime} runs engines: build one with "
                f"gen_trt_engine, or run the file with --runtime {ONNX_RUNTIME}"
            )
        return _of_onnx(path, None, key, stated)
    record = read_record(path)
    if runtime == ONNX_RUNTIME:
        source = verified(path.with_name(record.onnx), record.onnx_sha256, engine_record(path))
        return _of_onnx(source, record, key, None)
    if runtime not in (None, record.runtime):
        raise RequestError(
            f"{path} was built by {record.runtime}; found --runtime {runtime}: build an engine "
            f"with {runtime}, or leave it out"
        )
    library = open_tensorrt(record.runtime)
    see_that_it_fits(path, record, library, device)
    verified(path, record.engine_sha256, engine_record(path))
    with decrypted(path, key) as source_of:
        plan = source_of.read_bytes() if isinstance(source_of, Path) else source_of.read()
    return Detector(
        metadata=record.metadata,
        size=record.size,
        num_queries=record.num_queries,
        num_classes=record.num_classes,
        runtime=Runtime(library.name, library.version),
        precision=record.precision,
        max_batch=record.profile.max,
        record=record,
        _predict=library.open(plan, record, device),
    )


def _of_onnx(
    path: Path, record: EngineRecord | None, key: str | None, stated: OnnxMetadata | None
) -> Detector:
    found = open_onnx(path, key=key, stated=stated)
    return Detector(
        metadata=found.metadata,
        size=found.size,
        num_queries=found.num_queries,
        num_classes=found.num_classes,
        runtime=Runtime(ONNX_RUNTIME, onnxruntime.__version__),
        precision=record.precision if record else precision_of(_graph_of(path, key)),
        max_batch=found.batch,
        record=record,
        _predict=found,
    )


def _graph_of(path: Path, key: str | None) -> ModelProto:
    with decrypted(path, key) as source:
        return onnx.load(source, load_external_data=False)


def precision_of(model: ModelProto) -> Precision:
    """What an ONNX graph computes in, by what is written in it."""
    if any(node.op_type == "QuantizeLinear" for node in model.graph.node):
        return "INT8"
    halves = (TensorProto.FLOAT16, TensorProto.BFLOAT16)
    return "FP16" if any(one.data_type in halves for one in model.graph.initializer) else "FP32"
