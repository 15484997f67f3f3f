"""`${a.b}`: what another field gives."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from spec_files import NEEDED, TRAIN, load, only, problems


def value_of(folder: Path, text: str, name: str, *overrides: str) -> Any:
    value: Any = load(folder, TRAIN + text + "\n", *overrides, action="train").experiment
    for part in name.split("."):
        value = value[int(part)] if isinstance(value, list) else getattr(value, part)
    return value


@pytest.mark.parametrize(
    ("text", "name", "value"),
    [
        # whole values keep their type
        ("train: {num_epochs: 7, optim: {lr_step_size: '${train.num_epochs}'}}",
         "train.optim.lr_step_size", 7),
        ("train: {optim: {lr: 3e-4, lr_backbone: '${train.optim.lr}'}}",
         "train.optim.lr_backbone", 3e-4),
        ("train: {enable_ema: true, ema: {cpu_offload: '${train.enable_ema}'}}",
         "train.ema.cpu_offload", True),
        ("dataset.eval_class_ids: ${model.return_interm_indices}",
         "dataset.eval_class_ids", [1, 2, 3]),
        ("dataset.eval_class_ids: ${dataset.infer_data_sources}", "dataset.eval_class_ids", None),
        ("model: {dec_layers: 3}\ndistill: {teacher: '${model}'}",
         "distill.teacher.dec_layers", 3),
        # inside text they become text
        ("results_dir: /out\ntrain.results_dir: ${results_dir}/t", "train.results_dir", "/out/t"),
        ("results_dir: /o/${model.num_queries}-${train.optim.lr}-${train.enable_ema}",
         "results_dir", "/o/300-0.0001-False"),
        # defaults, of fields and of whole sections
        ("train.num_epochs: ${dataset.workers}", "train.num_epochs", 8),
        ("train: {num_epochs: '${dataset.workers}'}\nwandb: null", "train.num_epochs", 8),
        ("wandb: null\nresults_dir: /${wandb.project}", "results_dir", "/TAO Toolkit"),
        ("distill: {teacher: '${model}'}", "distill.teacher.dec_layers", 6),
        ("model: {num_queries: '???'}\nmodel.num_select: ${model.num_queries}",
         "model.num_select", 300),
        # through lists
        ("results_dir: ${dataset.train_data_sources[0].image_dir}/x", "results_dir",
         "/data/images/x"),
        ("results_dir: ${dataset.train_data_sources.0.image_dir}", "results_dir", "/data/images"),
        ("dataset.num_classes: ${model.feat_channels[1]}", "dataset.num_classes", 256),
        ("distill: {bindings: [{criterion: L2}, {weight: '${distill.bindings[0].weight}'}]}",
         "distill.bindings.1.weight", 1.0),
        # chains, and sections that are references themselves
        ("results_dir: ${train.results_dir}\ntrain: {results_dir: '${evaluate.results_dir}'}\n"
         "evaluate: {results_dir: '/${job.name}'}\njob: {name: x}", "results_dir", "/x"),
        ("distill: {teacher: '${model}'}\nmodel: {backbone: resnet_18}\n"
         "results_dir: /${distill.teacher.backbone}", "results_dir", "/resnet_18"),
        # a text that only looks like one
        ("results_dir: '/a/\\${x}/b'", "results_dir", "/a/${x}/b"),
    ],
)  # fmt: skip
def test_filled_in(tmp_path: Path, text: str, name: str, value: Any) -> None:
    found = value_of(tmp_path, text, name)
    assert found == value
    assert type(found) is type(value)


def test_overrides_hold_references_and_are_referred_to(tmp_path: Path) -> None:
    override = "train.results_dir=${results_dir}/t"
    assert value_of(tmp_path, "", "train.results_dir", override, "results_dir=/o") == "/o/t"
    text = "train.results_dir: ${results_dir}/t\nresults_dir: /file"
    assert value_of(tmp_path, text, "train.results_dir", "results_dir=/o") == "/o/t"
    line = only(problems(tmp_path, TRAIN, "results_dir=${results}", action="train"))
    assert line.startswith("override 'results_dir=${results}': results_dir: found '${results}'; ")


def test_a_file_as_tao_ships_for_quantize(tmp_path: Path) -> None:
    text = """
results_dir: /results
quantize:
  model_path: /c
  results_dir: ${results_dir}/quantize
"""
    loaded = load(tmp_path, text)
    assert loaded.experiment.quantize.results_dir == "/results/quantize"
    assert "${" not in str(loaded.resolved())


def test_what_is_still_to_be_given_stays_so(tmp_path: Path) -> None:
    text = "train: {pretrained_model_path: '???'}\nevaluate: {checkpoint: '${train.results_dir}'}\n"
    assert load(tmp_path, TRAIN + text, action="train").experiment.evaluate.checkpoint == ""
    overrides = [o for o in NEEDED["evaluate"] if "checkpoint" not in o]
    text = text.replace("train.results_dir", "train.pretrained_model_path")
    line = only(problems(tmp_path, text, *overrides, action="evaluate"))
    assert line.startswith("spec.yaml:2:24: evaluate.checkpoint: missing; action 'evaluate'")


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ("results_dir: ${reults_dir}/x",
         "5:14: results_dir: found '${reults_dir}/x'; there is no field reults_dir; did you mean "
         "'results_dir'?"),
        ("train.num_epochs: ${train.optim.warmup_step}",
         "5:19: train.num_epochs: found '${train.optim.warmup_step}'; there is no field "
         "train.optim.warmup_step; did you mean 'train.optim.warmup_steps'?"),
        ("results_dir: ${dataset.train_data_sources[1].image_dir}",
         "there is no dataset.train_data_sources[1]; dataset.train_data_sources has 1 entries"),
        ("results_dir: ${train.num_epochs.x}", "there is no field train.num_epochs.x"),
        ("results_dir: ${model.feat_strides[3]}", "there is no field model.feat_strides[3]"),
        ("results_dir: ${nothing[0]}", "there is no field nothing"),
        ("results_dir: ${oc.env:HOME}/x",
         "5:14: results_dir: found '${oc.env:HOME}/x'; a resolver (${oc.env:HOME}) is not run "
         "here; write the value, or the whole name of another field, such as ${results_dir}"),
        ("results_dir: ${env:HOME}", "a resolver (${env:HOME}) is not run here"),
        ("train: {results_dir: '${.seed}'}",
         "5:22: train.results_dir: found '${.seed}'; a reference by position (${.seed}) is not "
         "followed; write the value, or"),
        ("train: {results_dir: '${..results_dir}'}", "a reference by position (${..results_dir})"),
        ("results_dir: ${}", "'' is not the name of a field"),
        ("results_dir: ${a b", "no whole reference, or one inside another"),
        ("results_dir: ${a.${job.name}}", "no whole reference, or one inside another"),
        ("results_dir: /x${model}", "model is a section with "),
        ("results_dir: /x${train.gpu_ids}", "train.gpu_ids is [0], which cannot stand inside text"),
        ("train.results_dir: ${results_dir}/x",
         "results_dir is empty, and cannot stand inside text; give it, or write the value"),
        ("results_dir: ${results_dir}/x",
         "it leads back to itself: results_dir → results_dir"),
        ("results_dir: ${train.results_dir}\ntrain: {results_dir: '${evaluate.results_dir}'}\n"
         "evaluate: {results_dir: '/x/${results_dir}'}",
         "7:25: evaluate.results_dir: found '/x/${results_dir}'; it leads back to itself: "
         "results_dir → train.results_dir → evaluate.results_dir → results_dir"),
        ("distill: {teacher: {frozen_fm: '${distill.teacher}'}}",
         "it leads back to itself: distill.teacher.frozen_fm → distill.teacher.frozen_fm"),
        ("job: {action: '${job.name}'}",
         "5:15: job.action: found '${job.name}'; which action it is must be known first: write its "
         "name"),
    ],
)  # fmt: skip
def test_what_cannot_be_filled_in(tmp_path: Path, text: str, line: str) -> None:
    action = None if "action" in text else "train"
    assert line in only(problems(tmp_path, TRAIN + text + "\n", action=action))


def test_a_broken_reference_is_blamed_once(tmp_path: Path) -> None:
    """Not the values that build on it, nor rules about them."""
    text = """
dataset: {test_data_sources: {image_dir: /i, json_file: /j}}
evaluate: {checkpoint: '${train.results_dir}/x'}
train: {results_dir: '${results_dri}', gpu_ids: ['${nothing}', 1], num_gpus: 2}
"""
    first, second = problems(tmp_path, text, action="evaluate")
    assert "train.results_dir: found '${results_dri}'" in first
    assert "train.gpu_ids[0]: found '${nothing}'; there is no field nothing" in second


def test_a_wrong_type_is_found_where_the_reference_stands(tmp_path: Path) -> None:
    line = only(problems(tmp_path, TRAIN + "train: {seed: '${job.bad_images}'}\n", action="train"))
    assert line == "spec.yaml:5:15: train.seed: found 'stop' (text); allowed: an integer"
