"""Specs as NVIDIA TAO writes them, made of its published fields (spec/tao_fields.json)."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from rtdetr_slurm.actions import ACTIONS

TAO_FIELDS: dict[str, dict[str, Any]] = json.loads(
    (Path(__file__).parents[1] / "spec" / "tao_fields.json").read_text(encoding="utf-8")
)
_TO_GIVE = {"gen_trt_engine.tensorrt.calibration.cal_image_dir": "???"}
_BINDING = {"student_module_name": "srcs", "teacher_module_name": "srcs", "criterion": "IOU"}
_NO_NULLS = ("wandb", "quantize", "results_dir")
"""Where TAO's programs have empty text, and not null, for what is not given."""


def template(action: str) -> dict[str, Any]:
    """The form of TAO's skill for an action: the sections of all that trains, quantizes or is no
    action, and its own; empty text where something may be given."""
    others = {one.section for one in ACTIONS.values()} - {"train", "quantize"}
    others -= {ACTIONS[action].section}
    values = {
        **{path: field["default"] for path, field in TAO_FIELDS.items()},
        **_TO_GIVE,
        "dataset.eval_class_ids": [1],
        "export.input_height": 544,
        "export.input_width": 960,
        "distill.bindings": [{**_BINDING, "weight": 1.0}],
    }
    return _nested({path: value for path, value in values.items() if _top(path) not in others})


def default_specs(_action: str) -> dict[str, Any]:
    """What TAO's `default_specs` writes, for all actions at once: null where nothing is given."""
    values = {
        path: field.get("runtime_default", field["default"]) for path, field in TAO_FIELDS.items()
    }
    values |= {
        path: None for path, value in values.items() if value == "" and _top(path) not in _NO_NULLS
    }
    values |= _TO_GIVE | {
        "model_name": "rtdetr",
        "wandb.name": "TAO Toolkit training experiment",
        "wandb.tags": ["training", "tao-toolkit"],
    }
    spec = _nested({path: value for path, value in values.items() if _top(path) != "distill"})
    return spec | {"distill": None}


FORMS: tuple[Callable[[str], dict[str, Any]], ...] = (template, default_specs)
"""Both ways to a complete spec of an action."""


def as_overrides(spec: dict[str, Any], at: str = "") -> list[str]:
    """`key=value` for every value in nested sections; a data source is one value."""
    found = []
    for name, value in spec.items():
        inside = isinstance(value, dict) and not name.endswith("_data_sources")
        place = f"{at}{name}"
        found += as_overrides(value, f"{place}.") if inside else [f"{place}={json.dumps(value)}"]
    return found


def _top(path: str) -> str:
    return path.split(".")[0]


def _nested(values: dict[str, Any]) -> dict[str, Any]:
    """Sections in sections; the fields of a list's items are no part of its default."""
    sections = {path.rpartition(".")[0] for path in values}
    spec: dict[str, Any] = {}
    for path, value in values.items():
        if "[]" in path:
            continue
        node = spec
        *parents, name = path.split(".")
        for parent in parents:
            node = node[parent]
        node[name] = {} if path in sections else value
    return spec
