"""Fewer bits for the numbers of a detector, and what that costs."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from rtdetr_slurm.contract import QUANTIZE_JSON, Kpi
from rtdetr_slurm.engine.datasets.sources import open_sources, share_evaluation, table_of
from rtdetr_slurm.engine.detector import trained_detector
from rtdetr_slurm.engine.evaluation import (
    Scores,
    evaluate_detector,
    pixels_of,
    predictor,
    write_metrics,
)
from rtdetr_slurm.engine.process.phases import Phase
from rtdetr_slurm.engine.process.session import Session
from rtdetr_slurm.engine.process.stop import Interrupted
from rtdetr_slurm.engine.quantization.libraries import library_version
from rtdetr_slurm.engine.quantization.measure import LOOKED_AT, sensitivities
from rtdetr_slurm.engine.quantization.record import (
    CALIBRATION_IMAGES,
    Images,
    accuracy,
    described,
    of_images,
    of_layers,
)
from rtdetr_slurm.engine.quantization.subject import CheckpointSubject, OnnxSubject, Subject
from rtdetr_slurm.errors import RequestError
from rtdetr_slurm.files import sha256_of
from rtdetr_slurm.runs.artefacts import quantized_name
from rtdetr_slurm.spec.quantization import (
    BACKENDS,
    STATIC,
    LayerFormat,
    choose,
    key_problem,
    useless,
)
from rtdetr_slurm.vision.onnx_metadata import resize_problem
from rtdetr_slurm.vision.onnx_runtime import open_onnx
from rtdetr_slurm.vision.scoring import Predict, evaluation_data

LOST = 0.01
"""A mAP that is lower by more than this is warned of."""


def quantize(session: Session) -> dict[str, float]:
    """Quantize `quantize.model_path`; docs/engine.md says what is left.

    Returns:
        val_mAP and val_mAP50 of what was made, where there is a validation set.

    Raises:
        Interrupted: asked to stop; the next start begins again.
        UserError: whatever a user can do something about.
    """
    config = session.experiment.quantize
    library = library_version(config.backend)
    with session.phases.part("model"):
        subject = open_subject(session)
    layers, left = choose_layers(session, subject)
    calibration = open_images(session, subject, ("quant_calibration", "train"))
    scored = open_images(session, subject, ("val",))
    session.phases.enter(Phase.OTHER)

    session.say(f"{library} quantizes {len(layers)} of {len(subject.candidates)} layers")
    passed_over = subject.quantize(layers, lambda: batches(session, calibration))
    if passed_over:
        session.warn(f"{library} leaves as they are: {', '.join(passed_over)}")
    for name in passed_over:
        left[name] = f"{library} leaves it as it is"
        del layers[name]
    if not layers:
        raise RequestError(f"{library} quantizes none of the layers that quantize.layers means")
    moved = compare_layers(session, subject, layers, calibration if calibration.data else scored)
    before, after = (score(session, model, scored) for model in (subject.before, subject.after))

    name = quantized_name(config.backend)
    session.check_latest()
    subject.save(session.results_dir / name, session.key)
    if after is not None:
        facts = {"checkpoint": str(session.results_dir / name), "epoch": subject.epoch}
        write_metrics(session, after, facts | {"images": len(after.assessment.table)})
    record = {
        **described(config, subject, library, session.results_dir / name),
        "calibration": of_images(calibration) if config.mode == STATIC else None,
        "accuracy": accuracy(before, after, scored),
        "not_scored": scored.why or None,
        **of_layers(subject, layers, left, moved),
    }
    # The last file: where it is, all is there.
    session.write(QUANTIZE_JSON, json.dumps(record, indent=2, ensure_ascii=False) + "\n")
    tell(session, name, record)
    if after is None:
        return {}
    return {Kpi.VAL_MAP: after.summary["mAP"], Kpi.VAL_MAP50: after.summary["mAP50"]}


def open_subject(session: Session) -> Subject:
    """The detector to quantize.

    Raises:
        RequestError: the file cannot be read or does not fit.
    """
    config, device = session.experiment.quantize, session.context.device
    path = Path(config.model_path)
    if BACKENDS[config.backend].takes_onnx:
        if session.key is not None:
            raise RequestError(f"quantize.backend: {key_problem(config.backend)}")
        opened = open_onnx(path)
        keeps = session.experiment.dataset.augmentation.preserve_aspect_ratio
        if problem := resize_problem(opened.metadata, keeps):
            raise RequestError(f"{problem} ({path})")
        return OnnxSubject(path, opened, config)
    trained = trained_detector(session, path)
    height, width = session.experiment.dataset.augmentation.eval_spatial_size
    facts = {"checkpoint": path.name, "checkpoint_sha256": sha256_of(path)}
    return CheckpointSubject(trained, config, session.resolved, (height, width), device, facts)


def choose_layers(
    session: Session, subject: Subject
) -> tuple[dict[str, LayerFormat], dict[str, str]]:
    """The layers to quantize, and why the others stay as they are.

    Raises:
        RequestError: there are none, or a pattern of the spec means none.
    """
    config = session.experiment.quantize
    known = [(one.name, one.kinds) for one in subject.candidates]
    for field, pattern in useless(config, known):
        raise RequestError(
            f"{field}: found {pattern!r}, which means no layer; there are layers such as "
            f"{known[0][0]} ({known[0][1][0]}), and those of the decoder and of the encoder's "
            "transformer are meant only by a rule that begins with decoder. or encoder.encoder."
        )
    layers: dict[str, LayerFormat] = {}
    left: dict[str, str] = {}
    for one in subject.candidates:
        chosen = choose(config, one.name, one.kinds)
        if not one.multiply_adds:
            left[one.name] = "does not run"
        elif isinstance(chosen, str):
            left[one.name] = chosen
        else:
            layers[one.name] = chosen
    if not layers:
        raise RequestError("quantize.layers and quantize.skip_names leave no layer to quantize")
    return layers, left


def open_images(session: Session, subject: Subject, kinds: tuple[str, ...]) -> Images:
    """The first source of these kinds that the spec has.

    Raises:
        RequestError: it cannot be read, or a category id is not a class index of the spec.
    """
    for kind, sources in open_sources(session, kinds).items():
        for source in sources:
            table = table_of(session, [source])
            return Images(kind, evaluation_data(session.experiment, table, size=subject.size))
    missing = " and ".join(f"dataset.{kind}_data_sources" for kind in kinds)
    return Images(why=f"{missing}: not set")


def batches(session: Session, images: Images, count: int = CALIBRATION_IMAGES) -> Iterator[Tensor]:
    """Images, float32 [B, 3, H, W] in 0..1, on the session's device.

    Raises:
        Interrupted: asked to stop.
    """
    if images.data is None:
        return
    data = replace(images.data, table=images.data.table.spread(count))
    for pixels in pixels_of(session, share_evaluation(session, data)):
        yield pixels.contiguous(memory_format=torch.channels_last)


def compare_layers(
    session: Session, subject: Subject, layers: Mapping[str, LayerFormat], images: Images
) -> dict[str, float]:
    """What each layer does to the detections that is the only quantized one; the busiest first.

    Raises:
        Interrupted: asked to stop.
    """
    found = list(batches(session, images, LOOKED_AT))
    if not found:
        session.say("the layers are not compared: there are no images to do it on")
        return {}
    busiest = sorted(subject.candidates, key=lambda one: -one.multiply_adds)
    names = [one.name for one in busiest if one.name in layers]
    return compare_alone(session, predictor(subject.before), torch.cat(found), names, subject.alone)


@torch.no_grad()
def compare_alone(
    session: Session,
    reference: Predict,
    images: Tensor,
    names: Sequence[str],
    alone: Callable[[str], AbstractContextManager[Predict]],
) -> dict[str, float]:
    """As `measure.sensitivities`, of as many of the layers as there is time for.

    Raises:
        Interrupted: asked to stop.
    """

    def stop() -> bool:
        session.phases.stepped()
        return session.stop.requested

    with session.phases.during(Phase.VALIDATING, steps=len(names)):
        moved = sensitivities(reference(images), images, names, alone, stop)
    if session.stop.requested:
        raise Interrupted
    if len(moved) < len(names):
        session.say(f"{len(names) - len(moved)} layers are not compared: it would take too long")
    return moved


def score(session: Session, model: torch.nn.Module, images: Images) -> Scores | None:
    """What a detector finds on the validation set; None where there is none."""
    if images.data is None:
        return None
    return evaluate_detector(session, predictor(model), share_evaluation(session, images.data))


def tell(session: Session, name: str, record: Mapping[str, Any]) -> None:
    """One line for people, and a warning where much was lost."""
    said = f"{len(record['layers'])} layers, {record['work']['share']:.1%} of the multiply-adds"
    scores = record["accuracy"]
    if scores is None:
        session.warn(f"what this costs in accuracy is not known: {record['not_scored']}")
        session.say(f"{session.results_dir / name}: {said}")
        return
    before, after = scores["before"]["mAP"], scores["after"]["mAP"]
    if before is None or after is None:  # no boxes, no mAP
        session.say(f"{session.results_dir / name}: {said}")
        return
    session.say(f"{session.results_dir / name}: {said}; mAP {before:.4f} to {after:.4f}")
    if before - after > LOST:
        worst = ", ".join(one["name"] for one in record["layers"][:3])
        session.warn(
            f"mAP has fallen from {before:.4f} to {after:.4f}; the layers that move detections "
            f"most are {worst}: name them in quantize.skip_names"
        )
