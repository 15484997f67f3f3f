"""What trt_evaluate and trt_inference have in common: the detector of a spec that names an engine,
or an ONNX file."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from rtdetr_slurm.actions import get_action
from rtdetr_slurm.deploy.detector import Detector, open_detector
from rtdetr_slurm.engine.process.session import Session
from rtdetr_slurm.errors import RequestError
from rtdetr_slurm.spec.evaluate import EvaluateConfig
from rtdetr_slurm.spec.inference import InferenceConfig
from rtdetr_slurm.vision.onnx_metadata import nothing_said, resize_problem


def detector_of(session: Session, cfg: EvaluateConfig | InferenceConfig) -> Detector:
    """The detector that a section's `trt_engine` names, opened for this rank.

    Raises:
        RequestError: it cannot be run, or is not what the spec says.
        SiteError: what runs it is not here.
    """
    path = Path(cfg.trt_engine)
    with session.phases.part("model"):
        detector = open_detector(
            path,
            session.deploy.runtime,
            session.context.device,
            session.key,
            stated=nothing_said(
                session.experiment.model.num_select,
                session.experiment.dataset.augmentation.preserve_aspect_ratio,
            ),
        )
    for problem in _disagreements(session, cfg, detector):
        raise RequestError(f"{problem} ({path})")
    if session.context.is_main:
        for note in _notes(session, cfg, detector):
            session.warn(note)
    return detector


def _notes(
    session: Session, cfg: EvaluateConfig | InferenceConfig, detector: Detector
) -> Iterator[str]:
    """What is not as the spec has it, and does no harm."""
    if not detector.metadata.version:
        yield (
            "the file says nothing of itself: it is taken to want images as training here prepares "
            "them, and class i of its to be the category of id i"
        )
    height, width = detector.size
    asked = (cfg.input_height or height, cfg.input_width or width)
    if asked != detector.size:  # as TAO's templates have it, whatever the engine is for
        yield (
            f"{get_action(session.name).section}.input_height, input_width: found {asked[0]} x "
            f"{asked[1]}, and the detector was exported for {height} x {width}, which is what "
            "images are resized to"
        )
    kept, exported = session.experiment.model.num_select, detector.metadata.num_select
    if kept != exported:
        yield (
            f"model.num_select is {kept}, and the detector was exported with {exported}: the best "
            f"{kept} detections of an image are kept"
        )


def _disagreements(
    session: Session, cfg: EvaluateConfig | InferenceConfig, detector: Detector
) -> Iterator[str]:
    classes = session.experiment.dataset.num_classes
    if classes != detector.num_classes:
        yield (
            f"dataset.num_classes: found {classes}; allowed: {detector.num_classes}, which the "
            "detector has"
        )
    keeps = session.experiment.dataset.augmentation.preserve_aspect_ratio
    if problem := resize_problem(detector.metadata, keeps):
        yield problem
    if detector.max_batch is not None and cfg.batch_size > detector.max_batch:
        yield (
            f"{get_action(session.name).section}.batch_size: found {cfg.batch_size}; allowed: "
            f"1..{detector.max_batch}, which it was built for "
            "(gen_trt_engine.tensorrt.max_batch_size), or -1"
        )


def batch_size_of(
    session: Session, cfg: EvaluateConfig | InferenceConfig, detector: Detector
) -> int:
    """Images per rank and step: what is asked for, else dataset.batch_size, as far as the detector
    takes so many."""
    if cfg.batch_size > 0:
        return cfg.batch_size
    wanted = session.experiment.dataset.batch_size
    return min(wanted, detector.max_batch or wanted)


def facts_of(path: Path, detector: Detector) -> Mapping[str, Any]:
    """What the results say of the detector."""
    return {
        "trt_engine": str(path),
        "runtime": str(detector.runtime),
        "precision": detector.precision,
        "checkpoint": detector.metadata.checkpoint or None,
        "epoch": detector.metadata.epoch,
    }
