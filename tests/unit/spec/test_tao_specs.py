"""Specs as NVIDIA TAO writes them are read unchanged."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from spec_files import NEEDED, load, problems
from tao_specs import FORMS, template

from rtdetr_slurm.actions import ACTIONS
from rtdetr_slurm.spec.experiment import ExperimentConfig
from rtdetr_slurm.yaml_source import to_yaml

Form = Callable[[str], dict[str, Any]]


def own_default_specs(_action: str) -> dict[str, Any]:
    """What `rtdetr default_specs` writes here."""
    return ExperimentConfig().model_dump()


@pytest.mark.parametrize("form", [*FORMS, own_default_specs])
@pytest.mark.parametrize("action", ACTIONS)
def test_what_is_to_be_filled_in(tmp_path: Path, form: Form, action: str) -> None:
    """Of every section and every default of TAO's: what the action needs, and nothing else."""
    text = to_yaml(form(action))
    needed = {override.split("=")[0].split("[")[0] for override in NEEDED[action]}
    if form is template:
        needed -= {"distill.bindings"}  # it comes with one
    lines = problems(tmp_path, text, action=action)
    assert all(f"missing; action '{action}' needs it" in line for line in lines)
    assert {line.split(": ")[1] for line in lines} == {
        name.removesuffix(".image_dir") for name in needed
    }
    loaded = load(tmp_path, text, *NEEDED[action], action=action)
    assert loaded.notes == ()
    for name in ("model", "train"):
        assert getattr(loaded.experiment, name) == getattr(ExperimentConfig(), name)


def test_sections_that_are_null_and_placeholders_of_the_key(tmp_path: Path) -> None:
    text = """dataset:
  train_data_sources: [{image_dir: /i, json_file: /j}]
  val_data_sources: null
train: {checkpointer: null, pretrained_model_path: null}
wandb: null
distill: null
encryption_key: tlt_encode
"""
    assert load(tmp_path, text, action="train").experiment.encryption_key == "tlt_encode"


@pytest.mark.parametrize(
    ("action", "text"),
    [
        ("quantize", """
dataset.num_classes: 5
quantize.layers:
  - module_name: "*"
    weights: {dtype: float8_e4m3fn}
    activations: {dtype: float8_e4m3fn}
quantize: {backend: modelopt.pytorch, mode: static_ptq}
dataset.train_data_sources: [{image_dir: /i, json_file: /j}]
dataset.quant_calibration_data_sources: {image_dir: /i, json_file: /j}
quantize.model_path: /c
"""),
        ("inference", """
dataset.infer_data_sources: {image_dir: [/i], classmap: /m}
inference.checkpoint: /c
"""),
        ("train", """
train.num_epochs: 11
train.resume_training_checkpoint_path: /c
dataset.num_classes: 5
dataset.eval_class_ids: [1, 2, 3, 4]
dataset.train_data_sources: [{image_dir: /i, json_file: /j}]
dataset.val_data_sources: {image_dir: /i, json_file: /j}
"""),
    ],
)  # fmt: skip
def test_flat_specs_with_dotted_keys(tmp_path: Path, action: str, text: str) -> None:
    loaded = load(tmp_path, text, action=action)
    assert loaded.action == action
    if action == "quantize":
        weights = loaded.experiment.quantize.layers[0].weights
        assert weights is not None
        assert weights.dtype == "fp8_e4m3fn"


def test_lower_case_data_type_of_tao_samples(tmp_path: Path) -> None:
    text = "gen_trt_engine: {onnx_file: /o, trt_engine: /e, tensorrt: {data_type: int8}}\n"
    assert load(tmp_path, text).experiment.gen_trt_engine.tensorrt.data_type == "INT8"
