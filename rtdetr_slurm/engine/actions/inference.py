"""Detections on images without annotations: pictures, label files and predictions.json."""

from __future__ import annotations

from pathlib import Path

from rtdetr_slurm.data.classmap import inference_classes
from rtdetr_slurm.engine.datasets.sources import open_sources, share_evaluation
from rtdetr_slurm.engine.detector import trained_detector
from rtdetr_slurm.engine.evaluation import in_step, predictor
from rtdetr_slurm.engine.process.distributed import barrier, gather_objects, on_main
from rtdetr_slurm.engine.process.phases import Phase
from rtdetr_slurm.engine.process.session import Session
from rtdetr_slurm.vision.image_set import ImageSet, open_image_data
from rtdetr_slurm.vision.inference import Inference, Totals


def inference(session: Session) -> dict[str, float]:
    """Run `inference.checkpoint` on `dataset.infer_data_sources`.

    Returns:
        No KPIs.

    Raises:
        Interrupted: asked to stop; the next start begins again.
        UserError: whatever a user can do something about.
    """
    context, cfg = session.context, session.experiment.inference
    path = Path(cfg.checkpoint)
    sources = open_sources(session)["infer"]
    with session.phases.part("model"):
        detector = trained_detector(session, path, is_quantized=cfg.is_quantized)
    classes, notes = inference_classes(session.experiment, detector.classes or {})
    if context.is_main:
        for note in notes:
            session.warn(note)

    data = open_image_data(session.experiment, sources, classes)
    facts = {"action": session.name, "checkpoint": str(path), "epoch": detector.epoch}
    work = Inference(data, cfg, session.results_dir, session.write, facts)
    session.check_latest()
    on_main(work.begin)

    batch_size = cfg.batch_size if cfg.batch_size > 0 else None
    share = share_evaluation(session, data, batch_size, ImageSet(data.table, data.size))
    session.phases.enter(Phase.OTHER)
    with session.phases.during(Phase.INFERRING, steps=share.steps(context.world_size)):
        batches = in_step(session, share)
        found = work.run(predictor(detector.model), batches, context.device, context.cpus)
        session.record_bad_images()
        gathered = gather_objects(found)
        barrier()
    if context.is_main:
        tell(session, work.finish(gathered), data.conf_threshold)
    return {}


def tell(session: Session, totals: Totals, conf_threshold: float) -> None:
    """Say what was found; that there is nothing stays in status.json, too."""
    left_out = f"; {totals.left_out} could not be used" if totals.left_out else ""
    session.say(f"{totals.detections} detections in {totals.images} images{left_out}")
    if not totals.detections:
        session.warn(
            f"nothing was found in {totals.images} images with inference.conf_threshold "
            f"{conf_threshold}; a lower one shows weaker detections"
        )
