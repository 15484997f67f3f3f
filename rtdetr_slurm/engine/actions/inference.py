"""Detections on images without annotations: pictures, label files and predictions.json."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rtdetr_slurm.contract import IMAGES_JSON, PREDICTIONS_JSON
from rtdetr_slurm.data.classmap import inference_classes
from rtdetr_slurm.engine.datasets.sources import EvaluationShare, open_sources, share_evaluation
from rtdetr_slurm.engine.detector import trained_detector
from rtdetr_slurm.engine.evaluation import in_step, predictor
from rtdetr_slurm.engine.process.distributed import barrier, gather_objects, on_main
from rtdetr_slurm.engine.process.phases import Phase
from rtdetr_slurm.engine.process.session import Session
from rtdetr_slurm.errors import ActionError
from rtdetr_slurm.spec.colours import parse_colour
from rtdetr_slurm.vision.image_set import ImageSet, open_image_data
from rtdetr_slurm.vision.output_names import OutputFiles, name_outputs
from rtdetr_slurm.vision.predictions import (
    clipped_rows,
    images_json,
    predictions_json,
    written_before,
)
from rtdetr_slurm.vision.result_writer import ResultWriter
from rtdetr_slurm.vision.scoring import EvaluationData, Predict, detect


def inference(session: Session) -> dict[str, float]:
    """Run `inference.checkpoint` on `dataset.infer_data_sources`.

    Returns:
        No KPIs.

    Raises:
        Interrupted: asked to stop; the next start begins again.
        UserError: whatever a user can do something about.
    """
    cfg = session.experiment.inference
    path = Path(cfg.checkpoint)
    sources = open_sources(session)["infer"]
    with session.phases.part("model"):
        detector = trained_detector(session, path)
    classes, notes = inference_classes(session.experiment, detector.classes or {})
    data = open_image_data(session.experiment, sources, classes)
    outputs = name_outputs(data.table, by_sequence=cfg.is_internal)
    facts = {
        "action": session.name,
        "checkpoint": str(path),
        "epoch": detector.epoch,
        "input_size": list(data.size),
        "conf_threshold": data.conf_threshold,
    }
    if session.context.is_main:
        for note in notes:
            session.warn(note)
    on_main(lambda: clear_results(session, data, outputs, facts))

    batch_size = cfg.batch_size if cfg.batch_size > 0 else None
    share = share_evaluation(session, data, batch_size, ImageSet(data.table, data.size))
    session.phases.enter(Phase.OTHER)
    with session.phases.during(Phase.VALIDATING, steps=share.steps(session.context.world_size)):
        found = find_objects(session, predictor(detector.model), share, outputs)
        session.record_bad_images()
        gathered = gather_objects(found)
        barrier()
    if session.context.is_main:
        write_predictions(session, data, outputs, facts, gathered)
    return {}


@dataclass
class Found:
    """What a rank has found in its share of the images.

    Attributes:
        rows: float64 [D, 7] of each batch, as `predictions.clipped_rows` gives them.
        sizes: width and height of the images that were used, by position.
        problems: why the others were not.
    """

    rows: list[NDArray[np.float64]] = field(default_factory=list)
    sizes: dict[int, tuple[int, int]] = field(default_factory=dict)
    problems: dict[int, str] = field(default_factory=dict)


def find_objects(
    session: Session, predict: Predict, share: EvaluationShare, outputs: Sequence[OutputFiles]
) -> Found:
    """Run the detector on this rank's images, and write the files of each.

    Raises:
        Interrupted: the ranks were asked to stop.
        ActionError: a file cannot be written.
    """
    cfg, data, found = session.experiment.inference, share.data, Found()
    classes = data.table.classes
    colours = {
        i: rgb
        for i, name in classes.items()
        if (rgb := parse_colour((cfg.color_map or {}).get(name, ""))) is not None
    }
    threads = session.context.cpus
    batches = in_step(session, share, skip_bad_images=True)
    with ResultWriter(
        session.write, outputs, classes, colours, cfg.outline_width, threads
    ) as writer:
        for detected in detect(predict, batches, data, session.context.device):
            batch, rows = detected.batch, clipped_rows(detected)
            reasons = {bad.path: bad.reason for bad in batch.bad}
            found.rows.append(rows)
            sizes = batch.sizes.int().tolist()
            for image, (width, height), file in zip(batch.images, sizes, batch.files, strict=True):
                if (path := str(data.table.path(image))) in reasons:
                    found.problems[image] = reasons[path]
                    continue
                found.sizes[image] = (width, height)
                writer.write(image, file, rows[rows[:, 0] == image])
    return found


def clear_results(
    session: Session, data: EvaluationData, outputs: Sequence[OutputFiles], facts: dict[str, Any]
) -> None:
    """Remove what an earlier inference has left in the results folder, and write down what this
    one will: whenever it ends, the next one finds all of it.

    Raises:
        RequestError: what it has left cannot be told.
        ActionError: a file cannot be removed or written.
    """
    session.check_latest()
    folder = session.results_dir
    places = set()
    path = folder / PREDICTIONS_JSON
    try:
        path.unlink(missing_ok=True)
        for name in written_before(folder / IMAGES_JSON):
            path = folder / name
            path.unlink(missing_ok=True)
            places |= {*PurePosixPath(name).parents} - {PurePosixPath()}
    except OSError as error:
        raise ActionError(f"cannot remove {path}: {error.strerror}") from None
    for place in sorted(places, reverse=True):  # a folder before the one that it is in
        try:
            (folder / place).rmdir()
        except OSError:
            continue  # it holds something else
    pieces = images_json(data.table, outputs, facts)
    session.write(IMAGES_JSON, lambda stream: stream.writelines(pieces))


def write_predictions(
    session: Session,
    data: EvaluationData,
    outputs: Sequence[OutputFiles],
    facts: dict[str, Any],
    gathered: Sequence[Found],
) -> None:
    """Write images.json and predictions.json from what all ranks have found.

    Raises:
        ActionError: no image could be used, or a file cannot be written.
    """
    sizes = {image: size for found in gathered for image, size in found.sizes.items()}
    problems = {image: reason for found in gathered for image, reason in found.problems.items()}
    if not sizes:
        image, reason = min(problems.items())
        raise ActionError(
            f"none of the {len(data.table)} images could be used: {data.table.path(image)} {reason}"
        )
    rows = np.concatenate([np.empty((0, 7)), *(rows for found in gathered for rows in found.rows)])
    rows = rows[np.argsort(rows[:, 0], kind="stable")]
    images = images_json(data.table, outputs, facts, sizes, problems)
    predictions = predictions_json(rows)
    session.write(IMAGES_JSON, lambda stream: stream.writelines(images))
    session.write(PREDICTIONS_JSON, lambda stream: stream.writelines(predictions))
    left_out = f"; {len(problems)} could not be used" if problems else ""
    session.say(f"{len(rows)} detections in {len(sizes)} images{left_out}")
    if not len(rows):
        session.warn(
            f"nothing was found in {len(sizes)} images with inference.conf_threshold "
            f"{data.conf_threshold}; a lower one shows weaker detections"
        )
