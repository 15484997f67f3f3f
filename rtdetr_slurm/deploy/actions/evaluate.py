"""Scoring a TensorRT engine, or an ONNX file, on the test set."""

from __future__ import annotations

from pathlib import Path

from rtdetr_slurm.contract import Kpi
from rtdetr_slurm.deploy.measure import IMAGES, measure, require
from rtdetr_slurm.deploy.running import batch_size_of, detector_of, facts_of
from rtdetr_slurm.engine.actions.evaluate import score
from rtdetr_slurm.engine.comparison import images_of
from rtdetr_slurm.engine.datasets.sources import open_sources
from rtdetr_slurm.engine.process.session import Session


def trt_evaluate(session: Session) -> dict[str, float]:
    """Score `evaluate.trt_engine` on `dataset.test_data_sources`, and on some of its images compare
    it with what it was made of.

    Returns:
        test_mAP and test_mAP50 on rank 0, nothing elsewhere.

    Raises:
        Interrupted: asked to stop; the next start begins again.
        ActionError: it loses more against the checkpoint than it may. All results are there.
        UserError: whatever a user can do something about.
    """
    cfg = session.experiment.evaluate
    path = Path(cfg.trt_engine)
    (source,) = open_sources(session)["test"]
    detector = detector_of(session, cfg)
    most = IMAGES[session.context.device.type]
    parity = measure(
        session, path, detector, images_of(session, "test", source, detector.size, most)
    )
    summary = score(
        session,
        detector,
        source,
        detector.size,
        detector.metadata.classes,
        facts_of(path, detector),
        batch_size_of(session, cfg, detector),
        parity.tradeoff if parity else None,
    )
    require(parity)
    return (
        {} if summary is None else {Kpi.TEST_MAP: summary["mAP"], Kpi.TEST_MAP50: summary["mAP50"]}
    )
