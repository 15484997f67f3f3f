"""The ready specs."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml
from spec_files import NEEDED, load

from rtdetr_slurm.actions import ACTIONS
from rtdetr_slurm.spec.experiment import ExperimentConfig, used_sections
from rtdetr_slurm.spec.fields import walk
from rtdetr_slurm.spec.generate import REPOSITORY
from rtdetr_slurm.yaml_source import dotted


def template(action: str) -> tuple[str, Any]:
    text = (REPOSITORY / "specs" / f"{action}.yaml").read_text(encoding="utf-8")
    return text, yaml.safe_load(text)


@pytest.mark.parametrize("action", ACTIONS)
def test_template_loads_when_filled_in(tmp_path: Path, action: str) -> None:
    text, data = template(action)
    loaded = load(tmp_path, text, *NEEDED[action])
    assert loaded.action == action
    assert set(data) == {"job", *used_sections(action)}
    # Nothing but what was filled in differs from the defaults.
    for name in set(data) - {"dataset", "job", action.removeprefix("trt_")}:
        assert getattr(loaded.experiment, name) == getattr(ExperimentConfig(), name)


@pytest.mark.parametrize("action", ACTIONS)
def test_every_field_of_a_template_has_its_comment(action: str) -> None:
    text, _ = template(action)
    comments = " ".join(line.strip().lstrip("# ") for line in text.splitlines() if "#" in line)
    for ref in walk(ExperimentConfig):
        in_list = "[]" in ref.path or "_data_sources." in dotted(ref.path)
        if ref.path[0] in used_sections(action) and action in ref.used_by and not in_list:
            assert str(ref.info.description) in comments, dotted(ref.path)
