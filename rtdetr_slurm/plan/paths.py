"""Which fields of a spec are paths, and what that means for a job."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

_DATA = (
    "dataset.train_data_sources.*.image_dir",
    "dataset.train_data_sources.*.json_file",
    "dataset.val_data_sources.image_dir",
    "dataset.val_data_sources.json_file",
)
_TEST_DATA = ("dataset.test_data_sources.image_dir", "dataset.test_data_sources.json_file")
_BACKBONE = ("model.pretrained_backbone_path",)

READS: Mapping[str, tuple[str, ...]] = {
    "train": (
        *_DATA,
        *_BACKBONE,
        "train.pretrained_model_path",
        "train.resume_training_checkpoint_path",
    ),
    "evaluate": (*_TEST_DATA, *_BACKBONE, "evaluate.checkpoint"),
}
"""Fields whose files an action reads."""

_OTHER_PATHS = (
    "dataset.infer_data_sources.image_dir",
    "dataset.infer_data_sources.image_dir.*",
    "dataset.infer_data_sources.classmap",
    "dataset.quant_calibration_data_sources.image_dir",
    "dataset.quant_calibration_data_sources.json_file",
    "model.frozen_fm.checkpoint",
    "train.checkpointer.dirpath",
    "evaluate.trt_engine",
    "inference.checkpoint",
    "inference.trt_engine",
    "export.checkpoint",
    "export.onnx_file",
    "distill.pretrained_teacher_model_path",
    "quantize.model_path",
    "gen_trt_engine.onnx_file",
    "gen_trt_engine.trt_engine",
    "gen_trt_engine.timing_cache",
    "gen_trt_engine.tensorrt.calibration.cal_image_dir.*",
    "gen_trt_engine.tensorrt.calibration.cal_cache_file",
    "results_dir",
    "*.results_dir",
)


def absolute_paths(spec: Mapping[str, Any], cwd: Path) -> dict[str, Any]:
    """A copy of the resolved spec in which every relative path is taken from `cwd`.

    Empty values, TAO's `???` and URLs stay as they are.
    """
    patterns = {p for fields in READS.values() for p in fields} | set(_OTHER_PATHS)
    result = spec
    for pattern in sorted(patterns):
        result = _mapped(result, pattern.split("."), cwd)
    return dict(result)


def read_paths(spec: Mapping[str, Any], action: str) -> list[str]:
    """The files and folders that the action reads, in spec order, each once."""
    found = (p for field in READS.get(action, ()) for p in _values(spec, field.split(".")))
    return list(dict.fromkeys(path for path in found if _is_path(path)))


def _is_path(value: Any) -> bool:
    return isinstance(value, str) and value not in ("", "???") and "://" not in value


def _absolute(value: Any, cwd: Path) -> Any:
    if not _is_path(value):
        return value
    return os.path.normpath(cwd / Path(value).expanduser())


def _mapped(node: Any, keys: list[str], cwd: Path) -> Any:
    if not keys:
        return _absolute(node, cwd)
    key, rest = keys[0], keys[1:]
    if isinstance(node, Mapping):
        names = list(node) if key == "*" else [key] if key in node else []
        return {**node, **{name: _mapped(node[name], rest, cwd) for name in names}}
    if isinstance(node, list) and key == "*":
        return [_mapped(item, rest, cwd) for item in node]
    return node


def _values(node: Any, keys: list[str]) -> Iterator[Any]:
    if not keys:
        yield node
    elif isinstance(node, Mapping):
        if keys[0] in node:
            yield from _values(node[keys[0]], keys[1:])
    elif isinstance(node, list) and keys[0] == "*":
        for item in node:
            yield from _values(item, keys[1:])
