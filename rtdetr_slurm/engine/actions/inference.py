"""Detections on images without annotations: pictures, label files and predictions.json."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from rtdetr_slurm.data.classmap import inference_classes
from rtdetr_slurm.engine.datasets.sources import (
    OpenSource,
    open_sources,
    share_evaluation,
    table_of,
)
from rtdetr_slurm.engine.detector import trained_detector
from rtdetr_slurm.engine.evaluation import in_step, predictor
from rtdetr_slurm.engine.process.distributed import barrier, gather_objects, on_main
from rtdetr_slurm.engine.process.phases import Phase
from rtdetr_slurm.engine.process.session import Session
from rtdetr_slurm.vision.image_set import ImageSet, image_data
from rtdetr_slurm.vision.inference import Inference, Totals
from rtdetr_slurm.vision.scoring import Predict


def inference(session: Session) -> dict[str, float]:
    """Run `inference.checkpoint` on `dataset.infer_data_sources`.

    Returns:
        No KPIs.

    Raises:
        Interrupted: asked to stop; the next start begins again.
        UserError: whatever a user can do something about.
    """
    cfg = session.experiment.inference
    height, width = session.experiment.dataset.augmentation.eval_spatial_size
    path = Path(cfg.checkpoint)
    sources = open_sources(session)["infer"]
    with session.phases.part("model"):
        detector = trained_detector(session, path, is_quantized=cfg.is_quantized)
    facts = {"checkpoint": str(path), "epoch": detector.epoch}
    size = (cfg.input_height or height, cfg.input_width or width)
    batch_size = cfg.batch_size if cfg.batch_size > 0 else None
    infer(session, predictor(detector.model), sources, size, detector.classes, facts, batch_size)
    return {}


def infer(
    session: Session,
    predict: Predict,
    sources: Sequence[OpenSource],
    size: tuple[int, int],
    classes: Mapping[int, str] | None,
    facts: Mapping[str, Any],
    batch_size: int | None = None,
) -> None:
    """Run a detector in whatever form over images, and write what it finds.

    Args:
        size: (height, width) of the images that it takes.
        classes: that it was trained on, id to name; None where nothing says so.
        facts: of the detector, for images.json.
        batch_size: images per rank and step; None: dataset.batch_size.

    Raises:
        as `inference`.
    """
    context, cfg = session.context, session.experiment.inference
    named, notes = inference_classes(session.experiment, classes or {})
    if context.is_main:
        for note in notes:
            session.warn(note)

    data = image_data(session.experiment, table_of(session, sources, named), size)
    work = Inference(
        data, cfg, session.results_dir, session.write, {"action": session.name, **facts}
    )
    session.check_latest()
    on_main(work.begin)

    share = share_evaluation(session, data, batch_size, ImageSet(data.table, data.resize))
    session.phases.enter(Phase.OTHER)
    with session.phases.during(Phase.INFERRING, steps=share.steps(context.world_size)):
        batches = in_step(session, share)
        found = work.run(predict, batches, context.device, context.cpus)
        session.record_bad_images()
        gathered = gather_objects(found)
        barrier()
    if context.is_main:
        tell(session, work.finish(gathered), data.conf_threshold)


def tell(session: Session, totals: Totals, conf_threshold: float) -> None:
    """Say what was found; that there is nothing stays in status.json, too."""
    left_out = f"; {totals.left_out} could not be used" if totals.left_out else ""
    session.say(f"{totals.detections} detections in {totals.images} images{left_out}")
    if not totals.detections:
        session.warn(
            f"nothing was found in {totals.images} images with inference.conf_threshold "
            f"{conf_threshold}; a lower one shows weaker detections"
        )
