"""`rtdetr convert`: checkpoints as folders of Hugging Face's, and such folders as checkpoints."""

from __future__ import annotations

import argparse
import json
import os
import re
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from pydantic import ValidationError
from safetensors import SafetensorError
from safetensors.torch import save_file

from rtdetr_slurm import __version__
from rtdetr_slurm.contract import (
    HUGGING_FACE_CONFIG,
    HUGGING_FACE_PROCESSOR,
    HUGGING_FACE_WEIGHTS,
    ExitCode,
)
from rtdetr_slurm.engine.models import build_model
from rtdetr_slurm.engine.models.keymap import load_weights, unpacked
from rtdetr_slurm.engine.process.arguments import CONVERT
from rtdetr_slurm.engine.process.failures import writing_error
from rtdetr_slurm.engine.training.checkpoint import read_checkpoint, save_new
from rtdetr_slurm.errors import ActionError, RequestError
from rtdetr_slurm.files import new_folder
from rtdetr_slurm.records import read_json
from rtdetr_slurm.resolved_spec import spec_text
from rtdetr_slurm.spec import ExperimentConfig
from rtdetr_slurm.spec.hugging_face import (
    config_of,
    detector_of,
    image_processor_of,
    image_size_of,
)
from rtdetr_slurm.spec.keys import find_key
from rtdetr_slurm.spec.modules import keeps_pretrained_norms
from rtdetr_slurm.spec.tensor_names import COUNTER, hugging_face_name
from rtdetr_slurm.values import shown

HUGGING_FACE, OWN = "huggingface", "rtdetr"


def convert(argv: Sequence[str]) -> int:
    """Run the command line after `rtdetr convert`; returns the exit code.

    Raises:
        RequestError: the source cannot be read or converted, or there is something at the target.
        ActionError: the target cannot be written.
    """
    options = _parser().parse_args(argv)
    source, target = options.source, options.output
    if os.path.lexists(target):
        raise RequestError(f"{target} exists already, and is not overwritten")
    if not target.parent.is_dir():
        raise RequestError(f"{target}: {target.parent} is no folder")
    key = find_key(None, "", os.environ)
    said = (to_hugging_face if options.to == HUGGING_FACE else to_checkpoint)(source, target, key)
    print(f"rtdetr: {said}", file=sys.stderr, flush=True)
    print(target, flush=True)
    return ExitCode.OK


def to_hugging_face(path: Path, folder: Path, key: str | None = None) -> str:
    """Write a checkpoint as a folder that transformers' from_pretrained reads: the averaged weights
    where there are any, in float32.

    Args:
        key: of a checkpoint that is encrypted; the folder is not, for transformers is to read it.

    Returns:
        What was done, in a line.

    Raises:
        RequestError: it is no checkpoint of this engine, transformers has no such detector, or the
            folder is there already.
        ActionError: the folder cannot be written.
    """
    checkpoint = read_checkpoint(path, key)
    experiment = _experiment(checkpoint, path)
    model, num_classes = experiment.model, experiment.dataset.num_classes
    detector = build_model(model, num_classes)
    load_weights(detector, path, part="detector", key=key)
    depth = model.dec_layers if model.eval_idx < 0 else model.eval_idx + 1
    constant = keeps_pretrained_norms(experiment) or not model.train_backbone
    state = {
        hugging_face_name(name): tensor.contiguous()
        for name, tensor in unpacked(detector.state_dict()).items()
        if not _left_out(name, depth, constant_norms=constant)
    }
    try:
        config = config_of(
            model.model_copy(update={"dec_layers": depth}),
            num_classes,
            checkpoint["classes"] or {},
            constant_norms=constant,
        )
    except RequestError as error:
        raise RequestError(f"{path}: {error}") from None
    height, width = experiment.dataset.augmentation.eval_spatial_size
    try:
        with new_folder(folder) as new:
            save_file(state, new / HUGGING_FACE_WEIGHTS[0], metadata={"format": "pt"})
            _write_json(new / HUGGING_FACE_CONFIG, config)
            _write_json(new / HUGGING_FACE_PROCESSOR, image_processor_of((height, width)))
    except FileExistsError:
        raise RequestError(f"{folder} has come to exist meanwhile, and is kept") from None
    except OSError as error:
        raise writing_error(error, folder) from None
    except SafetensorError as error:
        raise ActionError(f"cannot write {folder}: {error}") from None
    cut = model.dec_layers - depth
    layers = f"; the last {cut} decoder layers, which model.eval_idx leaves out, are not in it"
    return f"{len(state)} tensors, {num_classes} classes{layers if cut else ''}"


def to_checkpoint(folder: Path, path: Path, key: str | None = None) -> str:
    """Write a folder of Hugging Face's as a checkpoint of weights alone, with a spec in it.

    Args:
        key: that the checkpoint is encrypted with; None: it is not.

    Returns:
        What was done, with what a spec for it has to say.

    Raises:
        RequestError: there is no detector in it, or none that this engine has, or the file is there
            already.
        ActionError: the file cannot be written.
    """
    config = _read_json(folder / HUGGING_FACE_CONFIG)
    files = [folder / name for name in HUGGING_FACE_WEIGHTS if (folder / name).is_file()]
    if not files:
        raise RequestError(f"{folder} has no {' and no '.join(HUGGING_FACE_WEIGHTS)}")
    size = _image_size(folder / HUGGING_FACE_PROCESSOR)
    try:
        found = detector_of(config, size)
    except RequestError as error:
        raise RequestError(f"{folder / HUGGING_FACE_CONFIG}:\n{error}") from None
    experiment = found.experiment
    detector = build_model(experiment.model, experiment.dataset.num_classes)
    report = load_weights(detector, files[0], part="detector")
    if heads := [line for line in report.skipped if "score_head" in line]:
        raise RequestError(f"{files[0]} is not what {HUGGING_FACE_CONFIG} says: {heads[0]}")
    weights = {
        "version": __version__,
        "epoch": None,
        "model": detector.state_dict(),
        "ema": None,
        "classes": found.classes or None,
        "spec": experiment.model_dump(include={"model", "dataset"}),
    }
    save_new(path, weights, key)
    return f"{report}\n{path} has its spec in it; a spec that uses it needs\n{_needed(experiment)}"


def _experiment(checkpoint: Mapping[str, Any], path: Path) -> ExperimentConfig:
    """The spec in a checkpoint."""
    try:
        return ExperimentConfig.model_validate(checkpoint["spec"])
    except ValidationError as error:
        raise RequestError(f"checkpoint {path}: its spec cannot be read: {error}") from None


def _left_out(name: str, depth: int, *, constant_norms: bool) -> bool:
    """Whether a tensor of ours has no place there: constant norms count nothing, and of the decoder
    the first `depth` layers are kept."""
    layer = re.match(r"decoder\.(?:decoder\.layers|dec_score_head|dec_bbox_head)\.(\d+)\.", name)
    counts = name.startswith("backbone.") and name.endswith(COUNTER)
    return (counts and constant_norms) or (layer is not None and int(layer[1]) >= depth)


def _image_size(path: Path) -> tuple[int, int] | None:
    """What preprocessor_config.json says; None where there is none, or images keep their shape."""
    try:
        return image_size_of(_read_json(path)) if path.is_file() else None
    except RequestError as error:
        raise RequestError(f"{path}: {error}") from None


def _needed(experiment: ExperimentConfig) -> str:
    """What is not the default in the parts of a spec that describe a detector, as YAML."""
    defaults = ExperimentConfig()
    usual = defaults.model.model_dump()
    model = {
        name: value for name, value in experiment.model.model_dump().items() if value != usual[name]
    }
    dataset: dict[str, Any] = {"num_classes": experiment.dataset.num_classes}
    size = experiment.dataset.augmentation.eval_spatial_size
    if size != defaults.dataset.augmentation.eval_spatial_size:
        dataset["augmentation"] = {"eval_spatial_size": size}
    return spec_text({"model": model, "dataset": dataset}).rstrip()


def _read_json(path: Path) -> Mapping[str, Any]:
    try:
        content = read_json(path)
    except FileNotFoundError:
        raise RequestError(
            f"{path} does not exist: allowed is a folder of Hugging Face's"
        ) from None
    if not isinstance(content, dict):
        raise RequestError(f"{path}: found {shown(content)}; expected an object")
    return content


def _write_json(path: Path, content: Mapping[str, Any]) -> None:
    path.write_text(json.dumps(content, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog=f"rtdetr {CONVERT}",
        description="Write a checkpoint as a folder that Hugging Face transformers reads, or such "
        "a folder as a checkpoint.",
    )
    parser.add_argument("source", type=Path, help="a checkpoint (.pth), or a folder")
    parser.add_argument(
        "-o", "--output", type=Path, required=True, help="the folder, or the .pth file, to make"
    )
    parser.add_argument(
        "--to",
        choices=(HUGGING_FACE, OWN),
        required=True,
        help=f"whose layout to write: {HUGGING_FACE} (a folder) or {OWN} (a .pth file)",
    )
    return parser
