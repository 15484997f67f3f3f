"""The table of actions: complete, and asked by whoever needs to know."""

from __future__ import annotations

import importlib
import re
from pathlib import Path

import pytest

import rtdetr_slurm
from rtdetr_slurm.actions import ACTIONS, get_action, last_that_leaves
from rtdetr_slurm.errors import RequestError
from rtdetr_slurm.resolved_spec import value_at
from rtdetr_slurm.site.profile import ROLES
from rtdetr_slurm.spec.dataset import DatasetConfig
from rtdetr_slurm.spec.experiment import ExperimentConfig


@pytest.mark.parametrize("name", ACTIONS)
def test_a_row_names_what_exists(name: str) -> None:
    action = ACTIONS[name]
    sections = ExperimentConfig.model_fields
    assert action.name == name
    assert action.section in sections
    assert action.topology is None or action.topology in sections
    assert action.role in ROLES
    assert {f"{kind}_data_sources" for kind in action.reads} <= set(DatasetConfig.model_fields)
    if action.artefact.kind == "field":
        spec = ExperimentConfig().model_dump()
        assert value_at(spec, action.artefact.name) is not None
    module, _, function = action.function.partition(":")
    assert callable(getattr(importlib.import_module(module), function))


def test_what_trains_leaves_checkpoints_and_can_go_on() -> None:
    trains = [name for name, action in ACTIONS.items() if action.trains]
    assert trains == ["train", "distill"]
    assert all(ACTIONS[name].resumable for name in trains)
    assert last_that_leaves("checkpoint", ["train", "evaluate"]) == 0
    assert last_that_leaves("checkpoint", ["train", "distill", "evaluate"]) == 1
    assert last_that_leaves("checkpoint", ["evaluate"]) is None
    assert last_that_leaves("checkpoint", []) is None


def test_what_is_not_in_the_table_is_no_other_action() -> None:
    with pytest.raises(RequestError, match=r"no action 'trian'; allowed: train.*mean 'train'\?"):
        get_action("trian")


def test_nobody_asks_for_an_action_by_its_name() -> None:
    """Such a comparison would hold for one action and fail open for the next."""
    names = "|".join(ACTIONS)
    asks = re.compile(rf"[!=]= [\"']({names})[\"']|[\"']({names})[\"'] [!=]=")
    package = Path(rtdetr_slurm.__file__).parent
    found = [
        f"{path.relative_to(package)}: {line.strip()}"
        for path in sorted(package.rglob("*.py"))
        for line in path.read_text().splitlines()
        if asks.search(line) and "kind" not in line  # kinds of data sources have such names, too
    ]
    assert found == []
