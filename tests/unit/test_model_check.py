"""What a user reads when a spec is wrong: place, value, what is allowed, the nearest name."""

from __future__ import annotations

from pathlib import Path

import pytest
from spec_files import EVALUATE, TRAIN, load, only, problems

from rtdetr_slurm.model_check import InvalidInput
from rtdetr_slurm.spec import load_spec
from rtdetr_slurm.yaml_source import Position


@pytest.mark.parametrize(
    ("text", "line"),
    [
        # unknown keys: at the key
        ("train: {num_epoch: 3}",
         "spec.yaml:5:9: train.num_epoch: unknown key; did you mean 'num_epochs'?"),
        ("train: {lr: 3}",
         "spec.yaml:5:9: train.lr: unknown key here; it belongs at train.optim.lr"),
        ("trian: {}",
         "spec.yaml:5:1: trian: unknown key; did you mean 'train'?"),
        ("train: {cudnn: {fast: true}}",
         "spec.yaml:5:17: train.cudnn.fast: unknown key; allowed here: deterministic, benchmark"),
        ("train: {optim: {backbone_lr_rate: 1}, num_class: 3}",
         "spec.yaml:5:39: train.num_class: unknown key; did you mean dataset.num_classes?"),
        # types: at the value
        ("train: {num_epochs: '8'}",
         "spec.yaml:5:21: train.num_epochs: found '8' (text); allowed: an integer"),
        ("train: {num_epochs: 8.0}",
         "spec.yaml:5:21: train.num_epochs: found 8.0; allowed: an integer"),
        ("train: {num_epochs: true}",
         "spec.yaml:5:21: train.num_epochs: found true; allowed: an integer"),
        ("train: {enable_ema: 1}",
         "spec.yaml:5:21: train.enable_ema: found 1; allowed: true or false"),
        ("train: {optim: {lr: 1e-4x}}",
         "spec.yaml:5:21: train.optim.lr: found '1e-4x' (text); allowed: a number"),
        ("train: {results_dir: 5}",
         "spec.yaml:5:22: train.results_dir: found 5 (write it in quotes to make it text); "
         "allowed: text"),
        ("train: {gpu_ids: 0}",
         "spec.yaml:5:18: train.gpu_ids: found 0; allowed: a list"),
        ("train: {gpu_ids: [0, a], num_gpus: 2}",
         "spec.yaml:5:22: train.gpu_ids[1]: found 'a' (text); allowed: an integer"),
        ("train: [1]",
         "spec.yaml:5:8: train: found [1]; allowed: a section (`key: value` lines)"),
        ("train: {clip_grad_norm: .nan}",
         "spec.yaml:5:25: train.clip_grad_norm: found nan; allowed: a finite number"),
        ("export: {input_channel: true}",
         "spec.yaml:5:25: export.input_channel: found true; allowed: an integer"),
        ("export: {input_channel: 2}",
         "spec.yaml:5:25: export.input_channel: found 2; allowed: 1, 3"),
        # bounds, enums, patterns
        ("train: {num_epochs: 0}", "spec.yaml:5:21: train.num_epochs: found 0; allowed: ≥ 1"),
        ("train: {optim: {lr: 0}}", "spec.yaml:5:21: train.optim.lr: found 0; allowed: > 0.0"),
        ("train: {optim: {lr: 2}}", "spec.yaml:5:21: train.optim.lr: found 2; allowed: ≤ 1.0"),
        ("train: {clip_grad_norm: -1}",
         "spec.yaml:5:25: train.clip_grad_norm: found -1; allowed: ≥ 0.0"),
        ("train: {precision: fp61}",
         "spec.yaml:5:20: train.precision: found 'fp61'; allowed: bf16, fp32, fp16; did you mean "
         "'fp16'?"),
        ("train: {gpu_ids: []}",
         "spec.yaml:5:18: train.gpu_ids: found []; allowed: at least 1 entries (found 0)"),
        ("train: {gpu_ids: [-1]}",
         "spec.yaml:5:19: train.gpu_ids[0]: found -1; allowed: ≥ 0"),
        ("quantize: {device: gpu}",
         "spec.yaml:5:20: quantize.device: found 'gpu'; allowed: cuda, cpu, trt, or "
         "one GPU such as cuda:1"),
        ("model: {loss_types: [vfl, l1]}",
         "spec.yaml:5:27: model.loss_types[1]: found 'l1'; allowed: vfl, boxes"),
        # sizes
        ("dataset.augmentation: {train_spatial_size: [640, 500]}",
         "spec.yaml:5:50: dataset.augmentation.train_spatial_size[1]: found 500; allowed: a "
         "multiple of 32"),
        ("dataset.augmentation: {eval_spatial_size: [640]}",
         "spec.yaml:5:43: dataset.augmentation.eval_spatial_size: found [640]; allowed: at least 2 "
         "entries (found 1)"),
        ("dataset.augmentation: {multi_scales: [640, 500]}",
         "spec.yaml:5:44: dataset.augmentation.multi_scales[1]: found 500; allowed: a multiple of "
         "32 or a list"),
        ("dataset.augmentation: {multi_scales: [[640, 50]]}",
         "spec.yaml:5:45: dataset.augmentation.multi_scales[0][1]: found 50; allowed: a multiple "
         "of 32"),
        ("export: {input_width: 650}",
         "spec.yaml:5:23: export.input_width: found 650; allowed: a multiple of 32"),
        ("dataset.train_data_sources.x: {}",
         "spec.yaml:5:1: dataset.train_data_sources.x: dataset.train_data_sources is a list; "
         "allowed: a position in it, such as [0]"),
    ],
)  # fmt: skip
def test_message(tmp_path: Path, text: str, line: str) -> None:
    assert line in problems(tmp_path, TRAIN + text + "\n", action="train")


def test_sizes_that_are_allowed(tmp_path: Path) -> None:
    scales = "dataset.augmentation.multi_scales=[480, [544, 960]]"
    experiment = load(tmp_path, TRAIN, scales, action="train").experiment
    assert experiment.dataset.augmentation.multi_scales == [480, [544, 960]]
    empty = load(tmp_path, TRAIN, "dataset.augmentation.multi_scales=[]", action="train")
    assert empty.experiment.dataset.augmentation.multi_scales == []


def test_clipping_can_be_turned_off_and_integers_are_numbers(tmp_path: Path) -> None:
    train = load(tmp_path, TRAIN + "train: {clip_grad_norm: 0, optim: {lr: 1}}\n").experiment.train
    assert train.clip_grad_norm == 0.0
    assert isinstance(train.clip_grad_norm, float)
    assert load(tmp_path, TRAIN, "train.optim.lr=1e-4").experiment.train.optim.lr == 1e-4


def test_everything_wrong_is_said_at_once_in_order(tmp_path: Path) -> None:
    """Types, unknown keys, rules, ignored options, missing values; the file, then overrides."""
    text = """\
model:
  num_queries: 10
  num_select: 900
evaluate:
  num_gpus: 2
  gpu_ids: [0]
  trt_engine: model.engine
  batch_size: '4'
  confthreshold: 0.5
"""
    lines = problems(tmp_path, text, "dataset.workers=0", "oops", action="evaluate")
    assert [line.split(": ")[1] for line in lines] == [
        "dataset.test_data_sources",
        "model.num_select",
        "evaluate.checkpoint",
        "evaluate.num_gpus",
        "evaluate.trt_engine",
        "evaluate.batch_size",
        "evaluate.confthreshold",
        "dataset.workers",
        "no '=' in it; allowed",
    ]
    assert [line.split(": ")[0] for line in lines] == [
        "spec.yaml:1:1", "spec.yaml:3:15", "spec.yaml:4:1", "spec.yaml:5:13", "spec.yaml:7:15",
        "spec.yaml:8:15", "spec.yaml:9:3", "override 'dataset.workers=0'", "override 'oops'",
    ]  # fmt: skip


def test_a_wrong_value_is_not_blamed_twice(tmp_path: Path) -> None:
    """A rule about a value that has the wrong type, or that depends on one, stays silent."""
    text = TRAIN + "train: {num_gpus: two, gpu_ids: [0, 1]}\nmodel: {num_queries: '1'}\n"
    lines = problems(tmp_path, text, "evaluate.checkpoint=5", action="train")
    assert len(lines) == 3
    line = only(problems(tmp_path, EVALUATE, "evaluate.checkpoint=5"))
    assert "found 5" in line


def test_errors_by_overrides_name_the_override(tmp_path: Path) -> None:
    line = only(problems(tmp_path, TRAIN, "train.num_epochs=many"))
    assert line == (
        "override 'train.num_epochs=many': train.num_epochs: found 'many' (text); allowed: an "
        "integer"
    )
    line = only(problems(tmp_path, TRAIN, "train.num_epoch=3"))
    assert line == (
        "override 'train.num_epoch=3': train.num_epoch: unknown key; did you mean 'num_epochs'?"
    )
    # The file is right by itself; what the override made of it is the override's fault.
    text = TRAIN + "train: {num_epochs: 4, checkpoint_interval: 4}\n"
    line = only(problems(tmp_path, text, "train.num_epochs=2"))
    assert line.startswith("override 'train.num_epochs=2': train.checkpoint_interval: found 4")
    # A value that an override put right is no problem any more.
    assert load(tmp_path, TRAIN + "train: {num_epochs: x}\n", "train.num_epochs=2").action


def test_problems_are_data_too(tmp_path: Path) -> None:
    path = tmp_path / "train.yaml"
    path.write_text(TRAIN + "train: {num_epochs: 0}\n", encoding="utf-8")
    with pytest.raises(InvalidInput) as error:
        load_spec(path, ["train.seed=x"])
    first, second = error.value.problems
    assert (first.file, first.position, first.override) == (str(path), Position(5, 21), None)
    assert (first.field, first.message) == ("train.num_epochs", "found 0; allowed: ≥ 1")
    assert (second.position, second.override) == (None, "train.seed=x")
    assert error.value.exit_code == 2
