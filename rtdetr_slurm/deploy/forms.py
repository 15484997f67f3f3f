"""The forms of one detector that an engine is compared with: its checkpoint, and its ONNX file."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, TypedDict

import torch
from pydantic import ValidationError

from rtdetr_slurm.actions import get_action
from rtdetr_slurm.contract import EXPORT_JSON
from rtdetr_slurm.deploy.detector import ONNX_RUNTIME, Detector, open_detector
from rtdetr_slurm.engine.detector import TrainedDetector, trained_detector
from rtdetr_slurm.engine.evaluation import predictor
from rtdetr_slurm.engine.models.weights import weights_record
from rtdetr_slurm.engine.process.distributed import on_main
from rtdetr_slurm.engine.process.session import Session
from rtdetr_slurm.errors import RequestError
from rtdetr_slurm.files import sha256_of
from rtdetr_slurm.records import BadRecord, checked, read_json
from rtdetr_slurm.runs.checkpoint_record import WeightsRecord
from rtdetr_slurm.spec.model import ModelConfig
from rtdetr_slurm.vision.onnx_metadata import OnnxMetadata
from rtdetr_slurm.vision.scoring import Predict

Kind = Literal["checkpoint", "onnx", "engine"]
CPU = torch.device("cpu")


@dataclass(frozen=True)
class Form:
    """A form of a detector that can be run.

    Attributes:
        ran: what was run in its place; None: itself.
        runtime: what runs it, with its version.
        device: that it computes on.
        max_batch: images that it takes at once; None: any number.
    """

    kind: Kind
    file: Path
    sha256: str
    precision: str
    runtime: str
    device: torch.device
    predict: Predict
    max_batch: int | None = None
    ran: Path | None = None


@dataclass(frozen=True)
class Missing:
    """A form that cannot be run here, and why."""

    kind: Kind
    why: str


class _Exported(TypedDict, total=False):
    """What export.json says of where a file has come from."""

    checkpoint: str


def forms_of(session: Session, path: Path, detector: Detector) -> Iterator[Form | Missing]:
    """All forms of a detector, its checkpoint first and itself last, each opened when its turn
    comes.

    Args:
        path: the file that `detector` was opened from.
    """
    record = detector.record
    source = path if record is None else Path(record.source_onnx)
    yield _checkpoint(session, detector, source)
    if record is not None:
        yield _exported(session, source, record.source_onnx_sha256)
    yield form_of(session, path, detector)


def form_of(session: Session, path: Path, detector: Detector) -> Form:
    """A detector that was opened from a file."""
    record, on_cpu = detector.record, detector.runtime.name == ONNX_RUNTIME
    return Form(
        "onnx" if record is None else "engine",
        path,
        sha256_of(path) if record is None else record.engine_sha256,
        detector.precision,
        str(detector.runtime),
        CPU if on_cpu else session.context.device,
        detector,
        detector.max_batch,
        path.with_name(record.onnx) if record is not None and on_cpu else None,
    )


def _exported(session: Session, path: Path, digest: str) -> Form | Missing:
    """The ONNX file that an engine's own was made of."""
    if why := on_main(lambda: _not_the_file(path, digest)):
        return Missing("onnx", why)
    try:
        onnx = open_detector(path, ONNX_RUNTIME, CPU, session.key)
    except RequestError as error:
        return Missing("onnx", str(error))
    runtime = str(onnx.runtime)
    return Form("onnx", path, digest, onnx.precision, runtime, CPU, onnx, onnx.max_batch)


def _checkpoint(session: Session, detector: Detector, onnx: Path) -> Form | Missing:
    """The checkpoint that was exported."""
    metadata = detector.metadata
    found = on_main(lambda: find_checkpoint(session, metadata, onnx))
    if isinstance(found, str):
        return Missing("checkpoint", found)
    try:
        record = weights_record(found, session.key)
        quantized = record.quantization is not None
        with session.phases.part("model"):
            trained = _trained(session, found, record, detector.num_queries)
    except (RequestError, BadRecord) as error:
        return Missing("checkpoint", str(error))
    return Form(
        "checkpoint",
        found,
        metadata.checkpoint_sha256,
        "quantized, FP32 otherwise" if quantized else "FP32",
        f"torch {torch.__version__}",
        session.context.device,
        predictor(trained.model),
    )


def _trained(
    session: Session, path: Path, record: WeightsRecord, num_queries: int
) -> TrainedDetector:
    """The detector of a checkpoint, as the spec's `model` has it, which says how it was exported;
    where that is another one, as left out in a spec for an engine, as the checkpoint has it."""
    quantized, asked = record.quantization is not None, session.experiment.model
    if asked.num_queries != num_queries:
        asked = asked.model_copy(update={"num_queries": num_queries})
    try:
        return trained_detector(session, path, asked, is_quantized=quantized)
    except RequestError:
        own = _own_model(record)
        if own is None:
            raise
    session.say(f"{path} is compared as it was trained, which is not what the spec's model is")
    own = own.model_copy(update={"num_queries": num_queries})
    return trained_detector(session, path, own, is_quantized=quantized)


def _own_model(record: WeightsRecord) -> ModelConfig | None:
    """The detector that a checkpoint was trained as, where it says so."""
    said = (record.spec or {}).get("model")
    try:
        return ModelConfig.model_validate(said) if isinstance(said, Mapping) else None
    except ValidationError:
        return None


def find_checkpoint(session: Session, metadata: OnnxMetadata, onnx: Path) -> Path | str:
    """The file that an ONNX file was exported from, by its digest: what the spec names, or what
    export.json beside the ONNX file does. Where it is not there, the reason."""
    section = get_action(session.name).section
    given = getattr(getattr(session.experiment, section), "checkpoint", "")
    if not metadata.checkpoint_sha256:
        return f"{onnx} does not say which checkpoint it was exported from"
    record = onnx.with_name(EXPORT_JSON)
    try:
        told = checked(_Exported, read_json(record), record).get("checkpoint")
    except (FileNotFoundError, BadRecord):
        told = None
    places = {f"{section}.checkpoint": given, str(record): told}
    reasons = []
    for place, path in places.items():
        if path and (why := _not_the_file(Path(path), metadata.checkpoint_sha256)) is None:
            return Path(path)
        reasons += [f"{why} ({place})"] if path else []
    return "; ".join(reasons) or (
        f"nothing says where {metadata.checkpoint} is, from which it was exported: there is no "
        f"{EXPORT_JSON} beside {onnx}"
    )


def _not_the_file(path: Path, digest: str) -> str | None:
    """None where a file is the one of that digest, else what is wrong, in words."""
    try:
        found = sha256_of(path)
    except OSError as error:
        return f"{path}: {error.strerror}"
    return None if found == digest else f"{path} is not the file that was exported, by its SHA-256"
