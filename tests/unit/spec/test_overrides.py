"""`key=value`, dotted keys and TAO's short names."""

from __future__ import annotations

from pathlib import Path

import pytest
from spec_files import EVALUATE, NEEDED, TRAIN, load, only, problems

from rtdetr_slurm.spec.overrides import SHORTHANDS, parse_key, parse_override

VALUES = {
    "num_epochs": ("7", 7),
    "batch_size": ("3", 3),
    "learning_rate": ("2e-4", 2e-4),
    "num_classes": ("9", 9),
    "eval_class_ids": ("[1, 2]", [1, 2]),
    "num_gpus": ("1", 1),
    "num_workers": ("2", 2),
    "resume_checkpoint": ("/a", "/a"),
    "pretrained_model": ("/b", "/b"),
    "pretrained_backbone": ("/c", "/c"),
    "teacher_model": ("/d", "/d"),
    "quantize_model": ("/e", "/e"),
    "export_onnx": ("/f", "/f"),
    "input_width": ("320", 320),
    "input_height": ("352", 352),
    "automl_policy": ("no HPO", "off"),
}


def test_keys() -> None:
    assert parse_key("a.b.0.c") == parse_key("a.b[0].c") == ("a", "b", 0, "c")
    override = parse_override("inference.color_map.traffic light=red = stop")
    assert override.path == ("inference", "color_map", "traffic light")
    assert override.value == "red = stop"


@pytest.mark.parametrize("name", sorted(SHORTHANDS))
def test_short_names_work_in_both_places(tmp_path: Path, name: str) -> None:
    text, expected = VALUES[name]
    for loaded in (
        load(tmp_path, TRAIN, f"{name}={text}", action="train"),
        load(tmp_path, TRAIN + f"{name}: {text}\n", action="train"),
    ):
        section, *parts = SHORTHANDS[name].split(".")
        value = loaded.automl if section == "automl" else getattr(loaded.experiment, section)
        for part in parts:
            value = getattr(value, part)
        assert value == expected


def test_num_gpus_goes_to_the_section_of_the_action(tmp_path: Path) -> None:
    for action in ("evaluate", "inference", "trt_evaluate", "trt_inference"):
        ids = f"{action.removeprefix('trt_')}.gpu_ids=[0, 1]"
        loaded = load(tmp_path, "num_gpus: 2\n", *NEEDED[action], ids, action=action)
        assert loaded.topology.num_gpus == 2
        assert loaded.experiment.train.num_gpus == 1
    loaded = load(tmp_path, "", *NEEDED["distill"], "num_gpus=2", "train.gpu_ids=[0, 1]",
                  action="distill")  # fmt: skip
    assert loaded.topology.gpu_ids == (0, 1)
    for text, overrides in (("num_gpus: 1\n", []), ("", ["num_gpus=1"])):
        line = only(problems(tmp_path, text, *NEEDED["export"], *overrides, action="export"))
        assert "action 'export' runs on one GPU; allowed: leave the short name out" in line


def test_a_field_and_its_short_name_are_one_too_many(tmp_path: Path) -> None:
    line = only(problems(tmp_path, "num_epochs: 3\n" + TRAIN + "train: {num_epochs: 4}\n"))
    assert line == (
        "spec.yaml:6:9: train.num_epochs: given twice: as 'num_epochs' in line 1 and in line 6"
    )
    line = only(problems(tmp_path, TRAIN, "num_epochs=3", "train.num_epochs=3", action="train"))
    assert "given twice: also by override 'num_epochs=3'" in line
    text = "num_gpus: 1\n" + EVALUATE + "  num_gpus: 1\n"
    line = only(problems(tmp_path, text))
    assert "evaluate.num_gpus: given twice: as 'num_gpus' in line 1 and in line 6" in line
    # The command line over the file is what overrides are for.
    text = "num_epochs: 3\n" + TRAIN
    assert load(tmp_path, text, "train.num_epochs=5").experiment.train.num_epochs == 5
    assert load(tmp_path, text, "num_epochs=6").experiment.train.num_epochs == 6


def test_dotted_keys_in_the_file(tmp_path: Path) -> None:
    text = TRAIN + "train.optim: {lr: 3e-4}\ntrain.optim.weight_decay: 2e-4\n'train.seed': 5\n"
    train = load(tmp_path, text).experiment.train
    assert (train.optim.lr, train.optim.weight_decay, train.seed) == (3e-4, 2e-4, 5)
    line = only(problems(tmp_path, TRAIN + "train.seed: x\n"))
    assert line == "spec.yaml:5:13: train.seed: found 'x' (text); allowed: an integer"
    line = only(problems(tmp_path, TRAIN + "train.sed: 1\n"))
    assert line == "spec.yaml:5:1: train.sed: unknown key; did you mean 'seed'?"
    text = TRAIN + "train: {seed: 1}\ntrain.seed: 2\n"
    assert "given twice" in only(problems(tmp_path, text))


def test_values_are_yaml(tmp_path: Path) -> None:
    overrides = [
        "train.optim.lr=1e-3",
        "train.gpu_ids=[0, 1]",
        "train.num_gpus=2",
        "train.enable_ema=true",
        "dataset.eval_class_ids=null",
        "dataset.val_data_sources={image_dir: /v, json_file: /w}",
        "train.results_dir=",
        "results_dir=/tmp/a=b",
    ]
    experiment = load(tmp_path, TRAIN, *overrides).experiment
    assert experiment.train.optim.lr == 1e-3
    assert experiment.train.gpu_ids == [0, 1]
    assert experiment.train.enable_ema is True
    assert experiment.dataset.eval_class_ids is None
    assert experiment.dataset.val_data_sources is not None
    assert experiment.dataset.val_data_sources.json_file == "/w"
    assert experiment.train.results_dir == ""
    assert experiment.results_dir == "/tmp/a=b"


def test_list_positions(tmp_path: Path) -> None:
    for index in (".0", "[0]"):
        override = f"dataset.train_data_sources{index}.image_dir=/x"
        sources = load(tmp_path, TRAIN, override, action="train").experiment.dataset
        assert sources.train_data_sources is not None
        assert sources.train_data_sources[0].image_dir == "/x"
        assert sources.train_data_sources[0].json_file == "/data/train.json"
    more = [
        "dataset.train_data_sources[1].image_dir=/x",
        "dataset.train_data_sources[1].json_file=/y",
    ]
    added = load(tmp_path, TRAIN, *more, action="train").experiment.dataset.train_data_sources
    assert added is not None
    assert [source.image_dir for source in added] == ["/data/images", "/x"]
    from_nothing = load(tmp_path, "", *NEEDED["train"], action="train").experiment.dataset
    assert from_nothing.train_data_sources is not None
    assert from_nothing.train_data_sources[0].image_dir == "/i"


@pytest.mark.parametrize(
    "overrides",
    [
        ("train.seed=1", "train.seed=2"),
        ("train.seed=1", "train.seed=1"),
        ("train.gpu_ids.0=1", "train.gpu_ids[0]=2"),
        ("train.seed=1", "train={seed: 2}"),  # the first would be lost
    ],
)
def test_a_field_is_overridden_once(tmp_path: Path, overrides: tuple[str, str]) -> None:
    line = only(problems(tmp_path, TRAIN, *overrides))
    assert line.startswith(f"override {overrides[1]!r}: train")
    assert line.endswith(f"given twice: also by override {overrides[0]!r}; give one of them")


def test_a_part_of_an_override_can_be_set_after_it(tmp_path: Path) -> None:
    assert load(tmp_path, TRAIN, "train={seed: 1}", "train.seed=2").experiment.train.seed == 2


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("train.seed", "no '=' in it; allowed: key=value, such as train.num_epochs=20"),
        ("=3", "'' is not a key; allowed: names joined by dots"),
        ("train..seed=3", "'train..seed' is not a key"),
        ("train.gpu_ids[x]=3", "'train.gpu_ids[x]' is not a key"),
        ("+train.seed=3", "allowed: the key without '+'"),
        ("train.gpu_ids=[0", "value '[0': not valid YAML"),
        ("train.seed={a: 1, a: 2}", "key 'a' is given twice"),
        ("dataset.train_data_sources[2].image_dir=/x",
         "dataset.train_data_sources has 1 entries; allowed: 0..1"),
        ("dataset.train_data_sources.image_dir=/x",
         "dataset.train_data_sources is a list; allowed: a position in it, such as [0]"),
        ("dataset.train_data_sources[0].image_dir.x=/x",
         "dataset.train_data_sources[0].image_dir is '/data/images', which has nothing inside"),
    ],
)  # fmt: skip
def test_malformed_overrides_are_named(tmp_path: Path, override: str, message: str) -> None:
    line = only(problems(tmp_path, TRAIN, override, action="train"))
    assert line.startswith(f"override {override!r}: ")
    assert message in line
