"""What the spec tests share: writing a spec, and reading what is wrong with it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from rtdetr_slurm.model_check import InvalidInput
from rtdetr_slurm.spec import LoadedSpec, load_spec

TRAIN = """\
dataset:
  train_data_sources:
    - image_dir: /data/images
      json_file: /data/train.json
"""
EVALUATE = """\
dataset:
  test_data_sources: {image_dir: /data/images, json_file: /data/test.json}
evaluate:
  checkpoint: /runs/model_epoch_009.pth
"""
_SOURCE = "{image_dir: /i, json_file: /j}"
NEEDED = {
    "train": [
        "dataset.train_data_sources[0].image_dir=/i",
        "dataset.train_data_sources[0].json_file=/j",
    ],
    "evaluate": [f"dataset.test_data_sources={_SOURCE}", "evaluate.checkpoint=/c"],
    "inference": ["dataset.infer_data_sources.image_dir=[/i]", "inference.checkpoint=/c"],
    "export": ["export.checkpoint=/c"],
    "distill": [
        f"dataset.train_data_sources=[{_SOURCE}]",
        "distill.pretrained_teacher_model_path=/t",
        "distill.bindings=[{student_module_name: srcs, teacher_module_name: srcs, criterion: IOU}]",
    ],
    "quantize": ["quantize.model_path=/c"],
    "gen_trt_engine": ["gen_trt_engine.onnx_file=/o"],
    "trt_evaluate": [f"dataset.test_data_sources={_SOURCE}", "evaluate.trt_engine=/e"],
    "trt_inference": ["dataset.infer_data_sources.image_dir=[/i]", "inference.trt_engine=/e"],
}
"""Overrides that give each action what it cannot do without."""


def write(folder: Path, text: str, name: str = "spec.yaml") -> Path:
    path = folder / name
    path.write_text(text, encoding="utf-8")
    return path


def load(
    folder: Path, text: str, *overrides: str, action: str | None = None, name: str = "spec.yaml"
) -> LoadedSpec:
    return load_spec(write(folder, text, name), overrides, action)


def problems(folder: Path, text: str, *overrides: str, action: str | None = None) -> list[str]:
    """The lines of the error, without the folder."""
    path = write(folder, text)
    with pytest.raises(InvalidInput) as error:
        load_spec(path, overrides, action)
    return str(error.value).replace(f"{folder}/", "").splitlines()


def only(lines: list[Any]) -> Any:
    assert len(lines) == 1, lines
    return lines[0]
