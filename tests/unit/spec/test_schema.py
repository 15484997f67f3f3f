"""The JSON Schemas: standard, complete, and in agreement with the models."""

from __future__ import annotations

import copy
import json
from collections.abc import Iterator
from typing import Any

import jsonschema
import pytest
import yaml

from rtdetr_slurm.actions import ACTIONS
from rtdetr_slurm.spec.experiment import ExperimentConfig, SpecFile, used_sections
from rtdetr_slurm.spec.fields import walk
from rtdetr_slurm.spec.generate import REPOSITORY
from rtdetr_slurm.spec.overrides import SHORTHANDS
from rtdetr_slurm.yaml_source import dotted

Validator = jsonschema.Draft202012Validator


def no_constants(name: str) -> Any:
    raise AssertionError(f"{name} is not JSON")


def schema(action: str) -> dict[str, Any]:
    text = (REPOSITORY / "schemas" / f"{action}.schema.json").read_text(encoding="utf-8")
    parsed: dict[str, Any] = json.loads(text, parse_constant=no_constants)
    return parsed


def template(action: str) -> tuple[str, Any]:
    text = (REPOSITORY / "specs" / f"{action}.yaml").read_text(encoding="utf-8")
    return text, yaml.safe_load(text)


def test_manifest() -> None:
    manifest = json.loads((REPOSITORY / "schemas/manifest.json").read_text(encoding="utf-8"))
    assert list(manifest["actions"]) == list(ACTIONS)
    for action, entry in manifest["actions"].items():
        assert (REPOSITORY / "schemas" / entry["schema"]).is_file()
        assert (REPOSITORY / "schemas" / entry["template"]).is_file()
        assert entry["sections"] == list(used_sections(action))


@pytest.mark.parametrize("action", ACTIONS)
def test_schema_is_standard_and_template_fits(action: str) -> None:
    content = schema(action)
    Validator.check_schema(content)
    assert content["$schema"] == Validator.META_SCHEMA["$id"]
    text, data = template(action)
    Validator(content).validate(data)
    Validator(content).validate(content["default"])
    assert text.startswith(f"# yaml-language-server: $schema=../schemas/{action}.schema.json\n")
    assert {key: value for key, value in data.items() if key != "job"} == content["default"]


def properties(node: Any) -> list[tuple[str, dict[str, Any]]]:
    found = []
    if isinstance(node, dict):
        for name, each in node.get("properties", {}).items():
            found.append((name, each))
        for key, value in node.items():
            if key not in ("default", "popular"):
                found += properties(value)
    return found


@pytest.mark.parametrize("action", ACTIONS)
def test_every_property_is_described(action: str) -> None:
    content = schema(action)
    for name, node in properties(content):
        assert node.get("description"), name


def test_extension_keys_of_tao() -> None:
    train = schema("train")
    assert train["automl_default_parameters"] == [
        "dataset.augmentation.distortion_prob", "dataset.augmentation.iou_crop_prob",
        "dataset.batch_size", "dataset.workers", "model.dec_layers", "model.enc_layers",
        "model.num_queries", "model.num_select", "train.ema.decay", "train.optim.lr",
        "train.optim.lr_backbone", "train.optim.lr_decay", "train.optim.lr_step_size",
        "train.optim.momentum", "train.optim.weight_decay",
    ]  # fmt: skip
    disabled = train["automl_disabled_parameters"]
    assert {"train", "model.frozen_fm", "train.gpu_ids", "wandb.tags"} <= set(disabled)
    assert "evaluate.gpu_ids" not in disabled  # another action's
    assert train["popular"] == {
        "train": {
            "num_epochs": 10, "num_gpus": 1, "gpu_ids": [0], "num_nodes": 1,
            "validation_interval": 1, "checkpoint_interval": 1,
        }
    }  # fmt: skip
    model = train["$defs"]["ModelConfig"]["properties"]
    assert model["num_select"]["x-depends-on"] == "model.num_queries"
    assert model["alpha"]["x-math-cond"] == "> 0.0"
    assert model["alpha"]["exclusiveMinimum"] == 0
    assert train["$defs"]["TrainConfig"]["properties"]["num_epochs"]["popular"] is True
    assert model["backbone"]["x-honoured-by"] == list(ACTIONS)


def test_all_disabled_parameters_over_all_schemas() -> None:
    disabled = {name for action in ACTIONS for name in schema(action)["automl_disabled_parameters"]}
    fields = {dotted(r.path) for r in walk(ExperimentConfig) if r.extra("x-automl") == "disabled"}
    assert disabled == fields
    # TAO's 46, the checkpointer section, distill.bindings, and what the teacher shares with model.
    assert len({name for name in disabled if not name.startswith("distill.teacher")}) == 48


@pytest.mark.parametrize(
    ("path", "value"),
    [
        (("train", "num_epochs"), 0),
        (("train", "num_epochs"), "8"),
        (("train", "optim", "lr"), 0),
        (("train", "precision"), "fp64"),
        (("train", "gpu_ids"), [-1]),
        (("train", "num_epoch"), 3),
        (("trian",), {}),
        (("dataset", "augmentation", "train_spatial_size"), [640, 500]),
        (("model", "loss_types"), ["l1"]),
        (("export",), {"input_channel": 2}),
        (("job", "name"), "a b"),
        (("job", "time"), "2h"),
        (("job", "then"), ["evalute"]),
        (("job", "then"), [{"name": "x"}]),
    ],
)
def test_schema_refuses_what_the_models_refuse(path: tuple[str, ...], value: Any) -> None:
    _, data = template("train")
    node = data = copy.deepcopy(data)
    for part in path[:-1]:
        node = node[part]
    node[path[-1]] = value
    assert not Validator(schema("train")).is_valid(data)


def test_schema_takes_what_a_spec_may_hold() -> None:
    _, data = template("train")
    data |= {"evaluate": {"checkpoint": "???"}, "automl": {"policy": True}, "train.seed": 3}
    data |= dict.fromkeys(SHORTHANDS)
    follow_up = {"action": "evaluate", "time": 30}
    data["job"] |= {"parent_job_id": "r", "time": "1:00:00", "then": ["evaluate", follow_up]}
    Validator(schema("train")).validate(data)


def test_no_message_shows_a_regular_expression() -> None:
    """A pattern comes with the words that a message says in its place."""

    def nodes(node: Any) -> Iterator[dict[str, Any]]:
        if isinstance(node, dict):
            yield node
        for inside in node.values() if isinstance(node, dict) else node:
            if isinstance(inside, dict | list):
                yield from nodes(inside)

    formed = [one for one in nodes(SpecFile.model_json_schema()) if "pattern" in one]
    assert len(formed) >= 8
    for one in formed:
        assert one["x-allowed"]
        assert not set(one["x-allowed"]) & set("^$\\|{}*")
