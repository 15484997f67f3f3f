"""Detections of a TensorRT engine, or an ONNX file, on images without annotations."""

from __future__ import annotations

from pathlib import Path

from rtdetr_slurm.deploy.measure import IMAGES, measure, require
from rtdetr_slurm.deploy.running import batch_size_of, detector_of, facts_of
from rtdetr_slurm.engine.actions.inference import infer
from rtdetr_slurm.engine.comparison import comparison
from rtdetr_slurm.engine.datasets.sources import open_sources
from rtdetr_slurm.engine.process.session import Session


def trt_inference(session: Session) -> dict[str, float]:
    """Run `inference.trt_engine` on `dataset.infer_data_sources`; where the spec has annotated
    images, too, compare it first with what it was made of.

    Returns:
        No KPIs.

    Raises:
        Interrupted: asked to stop; the next start begins again.
        ActionError: it loses more against the checkpoint than it may.
        UserError: whatever a user can do something about.
    """
    cfg = session.experiment.inference
    path = Path(cfg.trt_engine)
    sources = open_sources(session, ["infer"])["infer"]
    detector = detector_of(session, cfg)
    most = IMAGES[session.context.device.type]
    require(measure(session, path, detector, comparison(session, detector.size, most)))
    infer(
        session,
        detector,
        sources,
        detector.size,
        detector.metadata.classes,
        facts_of(path, detector),
        batch_size_of(session, cfg, detector),
    )
    return {}
