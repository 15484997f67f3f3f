"""The record of a TensorRT engine, in a file beside it: what it was built from, and what it fits.

An engine says nothing of itself, and is code of the GPU that it was built for. The record is read,
and what it says is compared with this machine, before TensorRT sees the file. Standard library
only.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path, PurePath
from typing import Any, Literal

from rtdetr_slurm.contract import (
    ENGINE_LOG_SUFFIX,
    ENGINE_VERSION,
    ONNX_SUFFIX,
)
from rtdetr_slurm.errors import RequestError
from rtdetr_slurm.files import sha256_of
from rtdetr_slurm.records import check_version, checked, read_json
from rtdetr_slurm.runs.artefacts import engine_record
from rtdetr_slurm.vision.onnx_metadata import OnnxMetadata

Builder = Literal["tensorrt", "tensorrt_rtx"]
"""What builds engines, and runs those that it has built; by the name of its Python module."""
Precision = Literal["FP32", "FP16", "INT8"]

_DIGEST = re.compile(r"[0-9a-f]{64}")
_CAPABILITY = re.compile(r"[1-9][0-9]?\.[0-9]")


@dataclass(frozen=True)
class Profile:
    """Batches that an engine takes: the smallest, the one that it is fastest for, the largest."""

    min: int
    opt: int
    max: int

    def __post_init__(self) -> None:
        if not 1 <= self.min <= self.opt <= self.max:
            raise ValueError(f"found batches {self}; expected 1 <= min <= opt <= max")

    def __str__(self) -> str:
        return f"{self.min}/{self.opt}/{self.max}"


@dataclass(frozen=True)
class EngineRecord:
    """What is known of an engine.

    Attributes:
        version: of the program that has built it.
        claim: under which it was built; None: by hand.
        onnx: name of the ONNX file that it was built from, in which its precision is written. It
            lies beside the engine, and so does `build_log`.
        source_onnx: path of the ONNX file that this was made of, as it was exported.
        checkpoint, checkpoint_sha256: as the ONNX file says; empty where it does not.
        runtime_version: of the TensorRT that has built it, and alone can run it.
        compute_capability: `8.9`, of the GPUs that it runs on.
        gpu: name of the GPU that it was built on; None: on none.
        int8_share: of all multiply-adds, those with INT8 operands, 0..1.
        higher_precision: layers that were kept in higher precision than asked for, with their
            formats.
        height, width: pixels of the images that it takes.
        num_queries, num_classes: Q and C of its output.
        classes: class id to name; None where nothing says so.
        thresholds: class name to the score with the best F1.
        num_select: detections that are kept per image.
        preserve_aspect_ratio: whether images keep theirs; records of before that could be have
            nothing of it.
    """

    version: str
    engine_sha256: str
    onnx: str
    onnx_sha256: str
    source_onnx: str
    source_onnx_sha256: str
    checkpoint: str
    checkpoint_sha256: str
    epoch: int | None
    runtime: Builder
    runtime_version: str
    compute_capability: str
    gpu: str | None
    precision: Precision
    int8_share: float
    higher_precision: Mapping[str, str]
    height: int
    width: int
    profile: Profile
    num_queries: int
    num_classes: int
    classes: Mapping[str, str] | None
    thresholds: Mapping[str, float]
    num_select: int
    build_log: str
    build_log_sha256: str
    claim: str | None = None
    preserve_aspect_ratio: bool = False
    schema_version: int = ENGINE_VERSION

    def __post_init__(self) -> None:
        for name, value in vars(self).items():
            if name.endswith("_sha256") and not (
                _DIGEST.fullmatch(value) or (name == "checkpoint_sha256" and not value)
            ):
                raise ValueError(f"{name}: found {value!r}; expected a SHA-256 in hexadecimal")
        for name in (self.onnx, self.build_log):
            if name in ("", "..") or PurePath(name).name != name:
                raise ValueError(f"found {name!r}; expected the name of a file beside this one")
        if not _CAPABILITY.fullmatch(self.compute_capability):
            raise ValueError(
                f"compute_capability: found {self.compute_capability!r}; expected one like 8.9"
            )
        if not 0 <= self.int8_share <= 1:
            raise ValueError(f"int8_share: found {self.int8_share}; expected 0 to 1")
        if not all(number.isdecimal() for number in self.classes or ()):
            raise ValueError("classes: found what is no class id")

    @property
    def size(self) -> tuple[int, int]:
        """(height, width) of the images that it takes."""
        return self.height, self.width

    @property
    def metadata(self) -> OnnxMetadata:
        """What the ONNX file that it was built from says of itself."""
        named = self.classes
        return OnnxMetadata(
            version=self.version,
            checkpoint=self.checkpoint,
            checkpoint_sha256=self.checkpoint_sha256,
            epoch=self.epoch,
            classes=None if named is None else {int(i): name for i, name in named.items()},
            thresholds=self.thresholds,
            num_select=self.num_select,
            preserve_aspect_ratio=self.preserve_aspect_ratio,
        )

    def text(self) -> str:
        """As the file holds it."""
        first: Mapping[str, Any] = {"schema_version": self.schema_version}
        return json.dumps({**first, **asdict(self)}, indent=2, ensure_ascii=False) + "\n"


@dataclass(frozen=True)
class EngineNames:
    """Of the files that gen_trt_engine leaves: the engine's, and what follows it."""

    engine: str

    @property
    def record(self) -> str:
        return engine_record(Path(self.engine)).name

    @property
    def onnx(self) -> str:
        return self.engine + ONNX_SUFFIX

    @property
    def log(self) -> str:
        return self.engine + ENGINE_LOG_SUFFIX


def read_record(engine: Path) -> EngineRecord:
    """The record of an engine; the engine itself is not opened.

    Raises:
        RequestError: there is none, or it cannot be used; says what to do.
    """
    path = engine_record(engine)
    try:
        data = read_json(path)
    except FileNotFoundError:
        raise RequestError(
            f"{path} is missing: it says what the engine {engine.name} was built from and for. "
            "Copy it from where the engine was built, or build the engine again with "
            "gen_trt_engine"
        ) from None
    check_version(data, path, ENGINE_VERSION)
    return checked(EngineRecord, data, path)


def verified(path: Path, digest: str, record: Path) -> Path:
    """A file whose digest is the one that a record has.

    Raises:
        RequestError: it is missing, or not the file that was recorded.
    """
    try:
        found = sha256_of(path)
    except OSError as error:
        raise RequestError(
            f"{path}, which {record.name} was written for: {error.strerror}"
        ) from None
    if found != digest:
        raise RequestError(
            f"{path} is damaged, or is not the file that {record} was written for: its SHA-256 is "
            f"{found[:12]}…, and was {digest[:12]}…. Copy both again from where the engine was "
            "built, or build it again with gen_trt_engine"
        )
    return path
