"""What is searched, and how far."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from spec_files import NEEDED, TRAIN, load

from rtdetr_slurm.actions import own_engine
from rtdetr_slurm.automl.policy import read_schema
from rtdetr_slurm.automl.ranges import own_range
from rtdetr_slurm.automl.space import Space, search_space
from rtdetr_slurm.errors import RequestError
from rtdetr_slurm.plan.search import Parameter

DATA = TRAIN + "  val_data_sources: {image_dir: /data/val, json_file: /data/val.json}\n"
SCHEMA = read_schema("train")
QUERIES = "automl.parameters=[model.num_queries, model.num_select]"


def space(folder: Path, *overrides: str, **spec: Any) -> Space:
    loaded = load(folder, DATA, *overrides, action="train")
    return search_space(loaded, {**loaded.resolved(), **spec}, SCHEMA, own_engine)


def named(found: Space) -> dict[str, Parameter]:
    return {parameter.field: parameter for parameter in found.parameters}


def refused(folder: Path, *overrides: str) -> str:
    with pytest.raises(RequestError) as error:
        space(folder, *overrides)
    return str(error.value)


def test_what_the_schema_has_by_default_without_what_has_no_effect(tmp_path: Path) -> None:
    found = space(tmp_path)
    assert {*named(found)} | {*found.left_out} == {*SCHEMA["automl_default_parameters"]}
    assert found.left_out == {
        "dataset.workers": "it changes how fast is trained, and not what is learned",
        "train.ema.decay": "train.enable_ema is false",
        "train.optim.lr_decay": "the learning rates do not drop within 10 epochs",
        "train.optim.lr_step_size": "train.optim.lr_scheduler is MultiStep",
        "train.optim.momentum": "train.optim.optimizer is AdamW",
    }


def test_what_a_recipe_decides_is_not_searched(tmp_path: Path) -> None:
    decides = "engine.recipe deim has a loss and a learning rate of its own"
    left_out = space(tmp_path, "engine.recipe=deim").left_out
    assert left_out["train.optim.lr_decay"] == left_out["train.optim.lr_step_size"] == decides
    assert decides in refused(tmp_path, "engine.recipe=deim", "automl.parameters=[model.gamma]")


def test_ranges_lie_around_the_specs_own_values(tmp_path: Path) -> None:
    found = space(
        tmp_path,
        "train.optim.lr=2e-4",
        "train.enable_ema=true",
        "train.optim.lr_scheduler=StepLR",
        "train.optim.lr_step_size=4",
        "dataset.batch_size=16",
        "model.dec_layers=12",
    )
    by_name = named(found)
    lr = by_name["train.optim.lr"]
    assert (lr.kind, lr.low, lr.high, lr.log) == ("float", 2e-5, 2e-3, True)
    decay = by_name["train.ema.decay"]
    assert (decay.low, decay.high, decay.log) == (0.99, 0.9999, False)
    step = by_name["train.optim.lr_step_size"]
    assert (step.kind, step.low, step.high) == ("int", 2, 9)
    layers = by_name["model.dec_layers"]
    assert (layers.low, layers.high) == (6, 12)  # no more than the schema allows
    batch = by_name["dataset.batch_size"]
    assert (batch.low, batch.high, batch.step) == (8, 32, 2)
    assert "train.optim.lr_decay" in by_name
    for parameter in found.parameters:
        assert parameter.low is not None
        assert parameter.high is not None
        assert parameter.low <= parameter.default <= parameter.high


def test_no_range_holds_what_a_spec_may_not_say(tmp_path: Path) -> None:
    small = [
        "dataset.augmentation.multi_scales=[]",
        "dataset.augmentation.eval_spatial_size=[96,96]",
        "dataset.augmentation.train_spatial_size=[96,96]",
        QUERIES,
    ]
    found = named(space(tmp_path, *small, "model.num_queries=150", "model.num_select=100"))
    assert found["model.num_queries"].high == 175  # steps of 25 from 150 on; 189 cells
    assert found["model.num_select"].at_most == "model.num_queries"


def test_a_limit_holds_where_the_spec_itself_keeps_it(tmp_path: Path) -> None:
    found = named(space(tmp_path, QUERIES, "model.num_queries=100", "dataset.num_classes=5"))
    assert found["model.num_select"].at_most is None  # 300 pairs of 100 queries and 5 classes
    alone = named(space(tmp_path, "automl.parameters=[model.num_select]"))
    assert alone["model.num_select"].at_most is None
    assert alone["model.num_select"].high == 600


def test_fields_and_ranges_of_the_users_own(tmp_path: Path) -> None:
    found = named(
        space(
            tmp_path,
            "automl.parameters=[train.optim.lr, model.backbone, train.enable_ema, train.precision]",
            "automl.ranges.train.optim.lr.max=1e-4",
            "automl.ranges.dataset.batch_size=[2, 4, 8]",
            "automl.ranges.model.backbone={valid_options: [resnet_18, resnet_50], "
            "option_weights: [3, 1]}",
            "automl.ranges.model.num_queries={min: 100, max: 500, step: 100}",
        )
    )
    assert (found["train.optim.lr"].low, found["train.optim.lr"].high) == (1e-5, 1e-4)
    assert found["dataset.batch_size"].choices == (2, 4, 8)
    assert found["model.backbone"].choices == ("resnet_18", "resnet_50")
    assert found["model.backbone"].weights == (3, 1)
    assert found["model.num_queries"].step == 100
    assert found["train.enable_ema"].choices == (False, True)
    assert found["train.precision"].choices == ("bf16", "fp32", "fp16")
    assert len(found) == 6


def test_values_of_a_real_number_are_real(tmp_path: Path) -> None:
    overrides = ["automl.parameters=[model.gamma]", "automl.ranges.model.gamma=[1, 2, 3]"]
    choices = named(space(tmp_path, *overrides))["model.gamma"].choices
    assert choices == (1.0, 2.0, 3.0)
    assert {type(one) for one in choices} == {float}


def test_a_range_is_searched_beside_the_default_fields(tmp_path: Path) -> None:
    found = named(space(tmp_path, "automl.ranges.model.gamma={min: 1, max: 3}"))
    assert (found["model.gamma"].low, found["model.gamma"].log) == (1.0, True)
    assert "train.optim.lr" in found


def test_weights_that_the_schema_has(tmp_path: Path) -> None:
    experiment = load(tmp_path, DATA, action="train").experiment
    node = {"enum": ["a", "b"], "option_weights": [1, 3]}
    found = own_range("model.act", "a", node, experiment)
    assert found is not None
    assert (found.choices, found.weights) == (("a", "b"), (1, 3))


def test_backbones_of_the_same_family(tmp_path: Path) -> None:
    found = named(space(tmp_path, "automl.parameters=[model.backbone]"))
    choices = found["model.backbone"].choices
    assert choices[0] == "resnet_50"
    assert "resnet_18_vd" in choices
    assert "convnext_tiny" not in choices


@pytest.mark.parametrize(
    ("override", "message"),
    [
        (
            "automl.parameters=[train.optim.momentum]",
            "train.optim.optimizer is AdamW",
        ),
        ("automl.parameters=[model.hidden_dim]", "allowed: automl.override_disabled: true"),
        ("automl.parameters=[train.num_epochs]", "cannot change: trials are compared"),
        ("automl.parameters=[dataset.num_classes]", "cannot change: all trials are scored alike"),
        ("automl.parameters=[model.frozen_fm.enabled]", "only its default works in train"),
        ("automl.parameters=[train.pretrained_model_path]", "nothing that can be searched"),
        ("automl.ranges.train.optim.lr={min: 1e-3, max: 1e-2}", "the spec's own value, with which"),
        ("automl.ranges.dataset.batch_size=[8, 16, 32]", "is 4; allowed: a range that holds it"),
        ("automl.ranges.model.num_queries={max: 9000}", "found 9000; allowed: ≤ 4725"),
        ("automl.ranges.model.num_queries={min: 100, max: 450, step: 100}", "whole steps"),
        ("automl.ranges.train.optim.lr={min: 0, log: true}", "train.optim.lr"),
        ("automl.ranges.model.backbone={min: 1, max: 2}", "allowed: a list of values"),
        ("automl.ranges.model.backbone.weights=[1, 2, 3]", "weights"),
    ],
)
def test_what_cannot_be_searched_is_refused_by_name(
    tmp_path: Path, override: str, message: str
) -> None:
    alone = ["automl.parameters=[train.optim.lr]"] if ".ranges." in override else []
    text = refused(tmp_path, override, *alone)
    assert message in text
    assert text.startswith("override")


def test_with_weights_to_start_from_the_detector_stays(tmp_path: Path) -> None:
    found = space(tmp_path, "train.pretrained_model_path=/w.pth")
    assert "model.dec_layers" in found.left_out
    assert "train.optim.lr" in named(found)
    pbt = space(tmp_path, "automl.algorithm=pbt", "automl.interval=2")
    assert "goes on with the same" in pbt.left_out["model.enc_layers"]
    both = ["model.pretrained_backbone_path=/b.pth", "automl.parameters=[model.backbone]"]
    assert "pretrained_backbone_path has weights of this one" in refused(tmp_path, *both)


def test_the_teacher_of_a_distillation_stays(tmp_path: Path) -> None:
    given = [one for one in NEEDED["distill"] if not one.startswith("dataset.")]
    loaded = load(tmp_path, DATA, *given, "distill.teacher={}", action="distill")
    found = search_space(loaded, loaded.resolved(), read_schema("distill"), own_engine)
    assert {"model.dec_layers", "train.optim.lr"} <= {*named(found)}
    assert not any(name.startswith("distill.") for name in named(found))
    assert found.left_out["distill.teacher.num_queries"] == "the teacher is as it was trained"


def test_disabled_fields_on_request(tmp_path: Path) -> None:
    overrides = [
        "automl.override_disabled=true",
        "automl.ranges.model.loss_types=[[vfl, boxes], [vfl]]",
    ]
    found = named(space(tmp_path, *overrides))["model.loss_types"]
    assert found.choices == (["vfl", "boxes"], ["vfl"])
