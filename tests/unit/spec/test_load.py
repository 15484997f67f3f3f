"""From a file to a LoadedSpec: actions, defaults, TAO's shapes, resolving and dumping."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
from spec_files import EVALUATE, NEEDED, TRAIN, load, only, problems, write

from rtdetr_slurm.actions import ACTIONS
from rtdetr_slurm.errors import RequestError
from rtdetr_slurm.spec import (
    dump_spec,
    load_spec,
)
from rtdetr_slurm.spec.template import template_yaml


def test_defaults_are_filled_in(tmp_path: Path) -> None:
    loaded = load(tmp_path, TRAIN, action="train")
    assert loaded.experiment.train.optim.lr == 1e-4
    assert loaded.experiment.model.backbone == "resnet_50"
    source = only(loaded.experiment.dataset.train_data_sources or [])
    assert (source.image_dir, source.json_file) == ("/data/images", "/data/train.json")
    assert loaded.experiment.dataset.val_data_sources is None
    assert loaded.section is loaded.experiment.train
    assert loaded.automl.policy is None


# --- which action ----------------------------------------------------------------------------
def test_action_by_argument_job_section_and_name(tmp_path: Path) -> None:
    both = TRAIN + EVALUATE.replace("dataset:\n", "")
    assert load(tmp_path, both, "job.action=train", action="evaluate").action == "evaluate"
    assert load(tmp_path, both + "job: {action: train}\n").action == "train"
    assert load(tmp_path, both, "job.action=evaluate").action == "evaluate"
    assert load(tmp_path, TRAIN + "train:\n  num_epochs: 3\n").action == "train"
    assert load(tmp_path, TRAIN, "train.num_epochs=3").action == "train"
    assert load(tmp_path, TRAIN + "train.num_epochs: 3\n").action == "train"
    assert load(tmp_path, TRAIN, name="train.yaml").action == "train"
    assert load(tmp_path, TRAIN + "train: {}\ndistill: null\n").action == "train"
    trt = EVALUATE.replace("checkpoint", "trt_engine") + "job: {action: trt_evaluate}\n"
    loaded = load(tmp_path, trt)
    assert loaded.action == "trt_evaluate"
    assert loaded.section is loaded.experiment.evaluate


ENGINE = EVALUATE.replace("checkpoint: /runs/model_epoch_009.pth", "trt_engine: /e")
BOTH = TRAIN + EVALUATE.replace("dataset:\n", "") + "train: {}\n"


@pytest.mark.parametrize(
    ("text", "name", "action"),
    [
        (ENGINE, "spec.yaml", "trt_evaluate"),
        (ENGINE + "inference: {trt_engine: ''}\n", "evaluate.yaml", "trt_evaluate"),
        (ENGINE + "  checkpoint: '???'\n", "spec.yaml", "trt_evaluate"),
        (ENGINE + "  checkpoint: null\n", "spec.yaml", "trt_evaluate"),
        (EVALUATE + "  trt_engine: ''\n", "spec.yaml", "evaluate"),
        (EVALUATE, "spec_template_deploy_evaluate.yaml", "trt_evaluate"),
        (BOTH, "spec_template_evaluate.yaml", "evaluate"),
        (BOTH, "spec_template_deploy_evaluate.yaml", "trt_evaluate"),
        (BOTH, "spec_template_deploy_gen_trt_engine.yaml", "gen_trt_engine"),
    ],
)
def test_engines_and_the_names_of_taos_templates(
    tmp_path: Path, text: str, name: str, action: str
) -> None:
    engine = "evaluate.trt_engine=/e" if action == "trt_evaluate" else ""
    onnx = "gen_trt_engine.onnx_file=/o" if action == "gen_trt_engine" else ""
    overrides = [*filter(None, (engine, onnx))]
    assert load(tmp_path, text, *overrides, name=name).action == action


def test_action_that_nobody_says(tmp_path: Path) -> None:
    line = only(problems(tmp_path, TRAIN))
    assert line.startswith("spec.yaml:1:1: which action? found none; say it with --action")
    for action in ACTIONS:
        assert action in line
    line = only(problems(tmp_path, TRAIN + "train: {}\nexport: {}\n"))
    assert "found the sections of several (train, export)" in line
    line = only(problems(tmp_path, TRAIN, "job.then=[evaluate]"))
    assert "which action? found none" in line


def test_action_that_does_not_exist(tmp_path: Path) -> None:
    with pytest.raises(RequestError, match=r"no action 'trian'; .*did you mean 'train'\?"):
        load(tmp_path, TRAIN, action="trian")
    line = only(problems(tmp_path, TRAIN + "job: {action: trian}\n"))
    assert line.startswith("spec.yaml:5:15: job.action: found 'trian'; allowed: train, evaluate")
    assert line.endswith("did you mean 'train'?")


# --- what counts as given --------------------------------------------------------------------
@pytest.mark.parametrize("empty", ["''", "null", "???"])
def test_empty_paths_are_absent(tmp_path: Path, empty: str) -> None:
    text = f"""{TRAIN}  val_data_sources:
    image_dir: {empty}
    json_file: {empty}
train:
  pretrained_model_path: {empty}
evaluate:
  checkpoint: {empty}
"""
    experiment = load(tmp_path, text, action="train").experiment
    assert experiment.dataset.val_data_sources is None
    assert experiment.train.pretrained_model_path == ""
    assert experiment.evaluate.checkpoint == ""


@pytest.mark.parametrize("action", ACTIONS)
def test_what_an_action_needs(tmp_path: Path, action: str) -> None:
    """Each action says what it misses, all of it, and nothing that others would miss."""
    lines = problems(tmp_path, "", action=action)
    missing = sorted(line.split(": ")[1] for line in lines)
    assert all(f"missing; action '{action}' needs it" in line for line in lines)
    needed = {override.split("=")[0].split("[")[0] for override in NEEDED[action]}
    assert missing == sorted(name.removesuffix(".image_dir") for name in needed)
    assert load(tmp_path, "", *NEEDED[action], action=action).action == action


def test_half_a_data_source_is_missing_the_other_half(tmp_path: Path) -> None:
    text = "dataset:\n  train_data_sources:\n    - image_dir: /data\n"
    line = only(problems(tmp_path, text, action="train"))
    assert line == (
        "spec.yaml:3:7: dataset.train_data_sources[0].json_file: missing; action 'train' needs it: "
        "Annotations in COCO's JSON format"
    )
    line = only(problems(tmp_path, TRAIN, "dataset.val_data_sources.image_dir=/x", action="train"))
    assert "dataset.val_data_sources.json_file: missing; action 'train' needs it" in line
    source = "dataset.infer_data_sources={image_dir: [''], classmap: /m}"
    line = only(problems(tmp_path, "", "inference.checkpoint=/c", source, action="inference"))
    assert "dataset.infer_data_sources.image_dir: missing; action 'inference' needs it" in line


def test_placeholders_are_placed_where_they_stand(tmp_path: Path) -> None:
    text = EVALUATE.replace("/runs/model_epoch_009.pth", "???")
    line = only(problems(tmp_path, text))
    assert line.startswith("spec.yaml:4:15: evaluate.checkpoint: missing; action 'evaluate'")
    text = EVALUATE.replace("checkpoint: /runs/model_epoch_009.pth", "conf_threshold: 0.1")
    assert only(problems(tmp_path, text)).startswith("spec.yaml:3:1: evaluate.checkpoint: missing")


# --- resolving and dumping -------------------------------------------------------------------
@pytest.mark.parametrize("action", ACTIONS)
def test_dumped_specs_load_again_as_equals(tmp_path: Path, action: str) -> None:
    loaded = load(tmp_path, template_yaml(action), *NEEDED[action])
    again = load(tmp_path, dump_spec(loaded.experiment), action=action)
    assert again.experiment == loaded.experiment
    assert again.resolved() == loaded.resolved()
    assert dump_spec(again.experiment) == dump_spec(loaded.experiment)


def test_resolved_has_what_is_used_and_what_is_given(tmp_path: Path) -> None:
    text = TRAIN + "evaluate: {checkpoint: /c}\njob: {name: x}\nautoml: {policy: off}\n"
    resolved = load(tmp_path, text, action="train").resolved()
    assert list(resolved) == [
        "results_dir", "model_name", "encryption_key", "wandb", "model", "dataset", "train",
        "evaluate", "engine",
    ]  # fmt: skip
    assert resolved["evaluate"]["checkpoint"] == "/c"
    assert resolved["train"]["ema"]["decay"] == 0.999
    assert resolved["dataset"]["train_data_sources"] == [
        {"image_dir": "/data/images", "json_file": "/data/train.json"}
    ]
    json.dumps(resolved, allow_nan=False)


# --- automl -------------------------------------------------------------------------------
@pytest.mark.parametrize(("word", "policy"), [("on", "on"), ("off", "off"), ("'on'", "on")])
def test_policy_in_both_spellings(tmp_path: Path, word: str, policy: str) -> None:
    loaded = load(tmp_path, TRAIN + f"automl: {{policy: {word}}}\n", action="train")
    assert loaded.automl.policy == policy
    assert load(tmp_path, TRAIN, f"automl.policy={word}", action="train").automl.policy == policy


def test_policy_that_is_no_policy(tmp_path: Path) -> None:
    line = only(problems(tmp_path, TRAIN + "automl: {policy: maybe}\n", action="train"))
    assert line == "spec.yaml:5:18: automl.policy: found 'maybe'; allowed: on, off"


def test_searched_parameters_are_fields(tmp_path: Path) -> None:
    text = TRAIN + "automl:\n  parameters: [train.optim.lr, train.optim.lrr]\n"
    line = only(problems(tmp_path, text, action="train"))
    assert line.startswith("spec.yaml:6:32: automl.parameters[1]: found 'train.optim.lrr'")
    assert line.endswith("did you mean 'train.optim.lr'?")


# --- the rest --------------------------------------------------------------------------------
def test_the_models_cannot_be_changed_by_accident(tmp_path: Path) -> None:
    experiment = load(tmp_path, TRAIN, action="train").experiment
    with pytest.raises(ValueError, match="frozen"):
        experiment.train.num_epochs = 3


def test_loading_needs_no_heavy_import(tmp_path: Path) -> None:
    path = write(tmp_path, TRAIN, "train.yaml")
    program = (
        "import sys; from pathlib import Path; from rtdetr_slurm.spec import load_spec, dump_spec;"
        "dump_spec(load_spec(Path(sys.argv[1])).experiment);"
        "heavy = {'jsonschema', 'rich', 'numpy', 'torch', 'submitit'} & set(sys.modules);"
        "sys.exit(str(heavy) if heavy else 0)"
    )
    done = subprocess.run(
        [sys.executable, "-c", program, path], capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stderr) == (0, "")


def test_file_errors_are_request_errors(tmp_path: Path) -> None:
    with pytest.raises(RequestError, match="no such file"):
        load_spec(tmp_path / "none.yaml")
    with pytest.raises(RequestError, match=r"spec\.yaml:1:4: not valid YAML"):
        load(tmp_path, "a: ]\n", action="train")
