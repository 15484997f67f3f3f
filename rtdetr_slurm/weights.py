"""Files of weights and models, looked into before a GPU is held: whether they are whole, and of
which detector they are."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

from rtdetr_slurm.contract import ONNX_SUFFIX
from rtdetr_slurm.encryption import is_encrypted, key_problem
from rtdetr_slurm.errors import RequestError
from rtdetr_slurm.model_check import Problem
from rtdetr_slurm.records import BadRecord, exists
from rtdetr_slurm.resolved_spec import value_at
from rtdetr_slurm.runs.artefacts import engine_record
from rtdetr_slurm.runs.checkpoint_record import (
    WeightsRecord,
    not_quantized,
    only_to_use,
    quantization_of,
    read_weights_record,
)
from rtdetr_slurm.runs.checkpoints import (
    nothing_left,
    verify_checkpoint,
    verify_model,
    verify_weights,
)
from rtdetr_slurm.runs.early_stopping import why_stopped_at
from rtdetr_slurm.spec import ExperimentConfig
from rtdetr_slurm.spec.architecture import Described, Part, describe, weights_problems
from rtdetr_slurm.spec.model import ModelConfig
from rtdetr_slurm.spec.quantization import opset_has
from rtdetr_slurm.yaml_source import KeyPath, dotted, show

RESUMED = ("train", "resume_training_checkpoint_path")
_EPOCHS = ("train", "num_epochs")
_OPTIMIZER = ("train", "optim", "optimizer")
_PATIENCE = ("engine", "early_stopping", "patience")
STARTED_WITH = ("train", "pretrained_model_path")
_BACKBONE = ("model", "pretrained_backbone_path")
_EXPORTED = ("export", "checkpoint")
_USED = (("evaluate", "checkpoint"), ("inference", "checkpoint"), _EXPORTED)
_QUANTIZED = ("quantize", "model_path")


_VERIFY = {"checkpoint": verify_checkpoint, "weights": verify_weights, "model": verify_model}


def file_problems(
    experiment: ExperimentConfig,
    at: KeyPath,
    path: Path,
    holds: str | None,
    key: str | None,
    *,
    ours: bool,
) -> Iterator[Problem]:
    """What is wrong with a file that a field names to be read.

    Args:
        at: the field.
        holds: what its field says that is in it; None: anything.
        key: that encrypted files are read with.
        ours: whether this project's engine reads it.
    """
    problem = _problem(path, holds, key)
    if problem is None and ours and holds == "engine":
        problem = _engine_problem(path)
    if problem is not None:
        yield Problem(at, f"found {path}; {problem}")
    elif ours and holds in _VERIFY:
        yield from weights_are_the_models(experiment, at, path)


def _another_optimizer(
    experiment: ExperimentConfig, record: WeightsRecord, path: Path
) -> Iterator[Problem]:
    there, now = value_at(record.spec or {}, dotted(_OPTIMIZER)), experiment.train.optim.optimizer
    if there not in (None, now):
        yield Problem(
            _OPTIMIZER,
            f"found {show(now)}; {path} trained with {show(there)}; allowed: the same, or a "
            "training that starts from its weights (train.pretrained_model_path)",
            also=(RESUMED,),
        )


def _engine_problem(path: Path) -> str | None:
    """What is missing beside an engine; an ONNX file in its place needs nothing."""
    record = engine_record(path)
    if path.suffix == ONNX_SUFFIX or exists(record):
        return None
    return (
        f"{record.name}, which gen_trt_engine leaves beside an engine, is missing; allowed: an "
        "engine with its record, or an ONNX file"
    )


def _problem(path: Path, holds: str | None, key: str | None) -> str | None:
    try:
        if not path.exists():
            return "there is no such file"
        if holds is None:
            return None
        if path.is_dir():
            return f"{path} is a folder; allowed: a file"
        verify = _VERIFY.get(holds)
        return (verify and verify(path)) or key_problem(path, key)
    except OSError as error:
        return f"{path} cannot be read: {error.strerror}"


def weights_are_the_models(
    experiment: ExperimentConfig, at: KeyPath, path: Path
) -> Iterator[Problem]:
    """Why the file that a field names cannot be what the field wants.

    What cannot be known without torch is passed over, and so is a file that is encrypted, or that
    is not read because another one is.

    Args:
        at: the field.
    """
    train, model = experiment.train, experiment.model
    classes = experiment.dataset.num_classes
    record = _record(path)
    if record is None:
        return
    if record.quantization is not None and at not in _USED:
        yield Problem(at, only_to_use(path))
    elif at == RESUMED:
        if not record.resumable:
            yield Problem(
                at,
                f"{path} is no checkpoint of a training of this program; allowed: one, or "
                "train.pretrained_model_path, which starts a training from whatever weights",
            )
        else:
            yield from other_detector(record, path, model, classes, at)
            if problem := nothing_left(path, train.num_epochs):
                yield Problem(_EPOCHS, problem, also=(at,))
            yield from _another_optimizer(experiment, record, path)
            stopping = experiment.engine.early_stopping
            values = (stopping.monitor, stopping.patience, stopping.min_delta)
            if problem := why_stopped_at(path, *values):
                yield Problem(_PATIENCE, f"{path}: {problem}", also=(at,))
    elif train.resume_training_checkpoint_path and at in (STARTED_WITH, _BACKBONE):
        return
    elif at == STARTED_WITH:
        yield from other_detector(record, path, model, None, at)
    elif at == _BACKBONE and not train.pretrained_model_path:
        yield from other_detector(record, path, model, None, at, part="backbone")
    elif at in _USED:
        yield from other_detector(record, path, model, classes, at)
        yield from _is_as_said(experiment, record, path, at)
    elif at == _QUANTIZED:
        yield from other_detector(record, path, model, classes, at)


def weights_can_be_scored(experiment: ExperimentConfig, path: Path) -> str | None:
    """Why weights that a training starts from are not those of the detector that it trains, class
    heads included; None where they are, or where that cannot be known without torch."""
    record = _record(path)
    if record is None:
        return None
    classes = experiment.dataset.num_classes
    found = other_detector(record, path, experiment.model, classes, STARTED_WITH)
    return next((problem.message for problem in found), None)


def _is_as_said(
    experiment: ExperimentConfig, record: WeightsRecord, path: Path, at: KeyPath
) -> Iterator[Problem]:
    """Whether `is_quantized` is right, and an export can write what the layers compute with."""
    flag, said = (at[0], "is_quantized"), getattr(experiment, str(at[0])).is_quantized
    quantization = quantization_of(record.quantization, path)
    if said and quantization is None:
        yield Problem(flag, f"found true; {not_quantized(path)}", also=(at,))
    elif quantization is not None and not said:
        holds = f"{path} holds a quantized detector"
        yield Problem(flag, f"found false; {holds}; allowed: true", also=(at,))
    elif quantization is not None and at == _EXPORTED:
        formats = {one["weights"] for one in quantization["layers"].values()}
        yield from opset_has(formats, experiment.export.opset_version)


def detector_of(record: WeightsRecord, num_classes: int | None, part: Part) -> Described:
    """The detector that a file's weights are of.

    Args:
        num_classes: of the spec; None where class heads of another size do no harm.

    Raises:
        RequestError: as `describe`.
    """
    return describe(
        record.shapes,
        record.spec,
        record.config,
        None if num_classes is None else record.processor,
        part,
        quantized=record.quantization is not None,
    )


def other_detector(
    record: WeightsRecord,
    path: Path,
    model: ModelConfig,
    num_classes: int | None,
    at: KeyPath,
    *,
    part: Part = "detector",
    model_at: KeyPath = ("model",),
) -> Iterator[Problem]:
    """Where a file's weights are not those of a detector.

    Args:
        num_classes: of the spec; None where class heads of another size do no harm.
        at: the field that names the file.
        model_at: where the spec has the detector.
    """
    try:
        described = detector_of(record, num_classes, part)
    except RequestError as error:
        yield from (Problem(at, f"{path.parent}/{line}") for line in str(error).splitlines())
        return
    for problem in weights_problems(model, num_classes, described, str(path), model_at):
        yield replace(problem, also=(*problem.also, at))


def classes_of(path: Path) -> dict[int, str] | None:
    """Id to name of the classes that weights are of, empty where nothing says so; None where that
    is not known yet: the file is still to be made, or cannot be read without torch or a key."""
    record = _record(path)
    if record is None or not record.shapes:
        return None
    try:
        found = {} if record.config is None else describe({}, config=record.config).classes
    except RequestError:  # said elsewhere
        found = {}
    return {**record.classes} or found


def _record(path: Path) -> WeightsRecord | None:
    try:
        return None if is_encrypted(path) else read_weights_record(path)
    except (OSError, BadRecord):
        return None
