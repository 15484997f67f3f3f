"""The detector of a session: built as the spec says, with the weights that it names."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import torch

from rtdetr_slurm.engine.models import RTDETR, build_model
from rtdetr_slurm.engine.models.keymap import load_weights
from rtdetr_slurm.engine.models.weights import weights_record
from rtdetr_slurm.engine.process.session import Session
from rtdetr_slurm.engine.quantization.detector import check_agreement, rebuilt
from rtdetr_slurm.engine.training.checkpoint import read_checkpoint
from rtdetr_slurm.errors import NewerVersion, RequestError
from rtdetr_slurm.records import BadRecord
from rtdetr_slurm.runs.checkpoint_record import not_quantized, quantization_of
from rtdetr_slurm.spec import in_lines
from rtdetr_slurm.spec.architecture import Described, Part, weights_problems
from rtdetr_slurm.spec.model import ModelConfig
from rtdetr_slurm.spec.modules import keeps_pretrained_norms
from rtdetr_slurm.weights import detector_of


@dataclass(frozen=True)
class TrainedDetector:
    """A detector with the weights of a file, and what the file says of itself.

    Attributes:
        classes: class id to name; None where nothing says so.
        epoch: that was worked on last; None for weights from elsewhere.
    """

    model: RTDETR
    classes: dict[int, str] | None
    epoch: int | None


def new_detector(session: Session, *, pretrained: bool = True) -> RTDETR:
    """The detector that training starts with, on the session's device.

    Args:
        pretrained: read the pretrained weights that the spec names; False where a checkpoint
            follows that holds all weights.

    Raises:
        RequestError: the weights cannot be read or do not fit.
    """
    experiment, cfg = session.experiment, session.experiment.train
    constant = keeps_pretrained_norms(experiment)
    checkpointing = cfg.activation_checkpoint and session.context.device.type == "cuda"
    if cfg.activation_checkpoint and not checkpointing:
        session.say(
            "activation checkpointing is off on CPU: it saves GPU memory, and changes no result"
        )
    model = build_model(
        experiment.model,
        experiment.dataset.num_classes,
        freeze_norm=constant,
        freeze_stem=constant,
        activation_checkpoint=checkpointing,
    )
    if cfg.pretrained_model_path and pretrained:
        path = Path(cfg.pretrained_model_path)
        refuse_other_detector(path, session.key, experiment.model)
        session.say(str(load_weights(model, path, part="detector", key=session.key)))
    elif (backbone := experiment.model.pretrained_backbone_path) and pretrained:
        path = Path(backbone)
        refuse_other_detector(path, session.key, experiment.model, part="backbone")
        session.say(str(load_weights(model, path, part="backbone", key=session.key)))
        if constant:
            session.say("the pretrained backbone's stem and batch norms are kept as they are")
    return _placed(model, session)


def trained_detector(
    session: Session,
    path: Path,
    model_config: ModelConfig | None = None,
    at: tuple[str, ...] = ("model",),
    *,
    is_quantized: bool = False,
) -> TrainedDetector:
    """The detector of the spec with the weights of `path`, averaged ones first.

    Args:
        model_config: its architecture, where it is not the one of `model`.
        at: where the spec has that.
        is_quantized: the file is a checkpoint that `quantize` has left.

    Raises:
        RequestError: the file does not fit, or has another number of classes.
    """
    num_classes = session.experiment.dataset.num_classes
    config = model_config or session.experiment.model
    described = refuse_other_detector(path, session.key, config, num_classes, at=at)
    model = build_model(config, num_classes)
    if is_quantized:
        return _quantized_detector(session, path, model)
    classes, epoch = _what_it_says(path, session.key)
    report = load_weights(model, path, part="detector", key=session.key)
    heads = [line for line in report.skipped if "score_head" in line]
    if heads:
        raise RequestError(
            f"checkpoint {path} has class heads of another size than dataset.num_classes "
            f"{num_classes}:\n  " + "\n  ".join(heads)
        )
    session.say(str(report))
    return TrainedDetector(_placed(model, session), classes or described.classes or None, epoch)


def refuse_other_detector(
    path: Path,
    key: str | None,
    config: ModelConfig,
    num_classes: int | None = None,
    part: Part = "detector",
    at: tuple[str, ...] = ("model",),
) -> Described:
    """What is known of a file's weights; what their shapes do not tell, whoever loads them finds
    out.

    Args:
        num_classes: of the spec; None where class heads of another size do no harm.
        part: of the detector that the file is needed for.
        at: where the spec has `config`.

    Raises:
        RequestError: its weights are not of the detector that is to have them, or encrypted and
            not with this key.
    """
    try:
        record = weights_record(path, key)
    except FileNotFoundError:
        raise RequestError(f"{path}: no such weight file") from None
    except BadRecord:
        return Described()  # which load_weights then has its say about
    try:
        described = detector_of(record, num_classes, part)
    except RequestError as error:
        raise RequestError(f"{path}, as the files beside it have it:\n{error}") from error
    problems = [*weights_problems(config, num_classes, described, str(path), at)]
    if problems:
        raise RequestError(in_lines(problems))
    return described


def _quantized_detector(session: Session, path: Path, model: RTDETR) -> TrainedDetector:
    content = read_checkpoint(path, session.key)
    quantization = quantization_of(content.get("quantization"), path)
    if quantization is None:
        raise RequestError(f"{session.name}.is_quantized: found true; {not_quantized(path)}")
    check_agreement(session.resolved.get("quantize"), quantization["spec"], path)
    fitting = rebuilt(model, quantization, path)
    try:
        fitting.load_state_dict(content["model"])
    except RuntimeError as error:
        raise RequestError(
            f"quantized checkpoint {path} does not fit the detector of this spec: {error}"
        ) from None
    layers = len(quantization["layers"])
    session.say(f"loaded {path}: {layers} layers quantized by {quantization['library']}")
    return TrainedDetector(_placed(fitting, session).eval(), content["classes"], content["epoch"])


def _placed(model: RTDETR, session: Session) -> RTDETR:
    return model.to(session.context.device).to(memory_format=torch.channels_last)


def _what_it_says(path: Path, key: str | None) -> tuple[dict[int, str] | None, int | None]:
    """Classes and epoch of a checkpoint of this engine. None for weights from elsewhere, or for no
    weights at all, which `load_weights` then has its say about."""
    if path.suffix != ".pth":
        return None, None
    try:
        checkpoint = read_checkpoint(path, key)
    except NewerVersion:
        raise
    except RequestError:
        return None, None
    return checkpoint["classes"], checkpoint["epoch"]
