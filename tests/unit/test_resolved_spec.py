"""A resolved spec as text, without a YAML library, and values in it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml

from rtdetr_slurm.resolved_spec import spec_text, value_at, with_value
from rtdetr_slurm.yaml_source import load_yaml

VALUES: list[Any] = [
    *(None, True, False, 0, -7, 10**20),
    *(0.0, 1e-05, -2.5e-08, 1e22, 0.1, 123456.789),
    *("", "plain", "yes", "null", "1e-5", "0x10", "a: b", "# no comment", " blanks ", "- x"),
    *(
        '"quoted"',
        "it's",
        "tab\tnew\nline",
        "back\\slash",
        "ü 漢 🎈",
        "a\u2028b\x85c\ufeffd",
        "\x7f",
    ),
    *([], [1, 2.5, "x", None], [[1, 2], [3]], [{"a": 1, "b": [1]}, {"c": {}}], [{}], {}),
    {"nested": {"deeper": {"x": 1}}, "empty": {}},
]


@pytest.mark.parametrize("value", VALUES, ids=repr)
def test_every_reader_reads_back_what_was_written(tmp_path: Path, value: Any) -> None:
    spec = {"key": value, "yes": value, "with space": [value], "last": 1}
    text = spec_text(spec)
    assert yaml.safe_load(text) == spec
    path = tmp_path / "spec.yaml"
    path.write_text(text, encoding="utf-8")
    assert load_yaml(path).data == spec


def test_a_number_stays_a_number_for_yaml_1_1() -> None:
    assert "lr: 1.0e-05\n" in spec_text({"train": {"optim": {"lr": 1e-05}}})


def test_what_json_does_not_have_is_refused() -> None:
    for value in (float("nan"), float("inf")):
        with pytest.raises(ValueError, match="not a number of a spec"):
            spec_text({"x": value})


def test_values_by_dotted_path() -> None:
    spec = {"evaluate": {"checkpoint": "", "batch_size": 4}}
    filled = with_value(spec, "evaluate.checkpoint", "/c.pth")
    assert filled == {"evaluate": {"checkpoint": "/c.pth", "batch_size": 4}}
    assert spec["evaluate"]["checkpoint"] == ""
    assert with_value({}, "a.b.c", 1) == {"a": {"b": {"c": 1}}}
    assert with_value({"a": None}, "a.b", 1) == {"a": {"b": 1}}
    assert value_at(filled, "evaluate.checkpoint") == "/c.pth"
    assert value_at(filled, "export.checkpoint") is None
    assert value_at(filled, "evaluate.checkpoint.x") is None
