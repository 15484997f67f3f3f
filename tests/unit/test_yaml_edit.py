"""Values set in the text of a YAML file."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from rtdetr_slurm.errors import RequestError
from rtdetr_slurm.yaml_edit import with_values
from rtdetr_slurm.yaml_source import KeyPath, parse_yaml

PATH = Path("spec.yaml")
VALUES: dict[KeyPath, Any] = {
    ("dataset", "num_classes"): 5,
    ("dataset", "eval_class_ids"): [1, 2, 3],
}


@pytest.mark.parametrize(
    ("before", "after"),
    [
        (
            "dataset:\n  num_classes: 3  # kinds\n  # how many\n  batch_size: 2 # few\n"
            "\n# t\nx: 1\n",
            "dataset:\n  num_classes: 5  # kinds\n  # how many\n  batch_size: 2 # few\n"
            "  eval_class_ids: [1, 2, 3]\n\n# t\nx: 1\n",
        ),
        (
            "dataset:\n  eval_class_ids:  # which\n    - 1  # cat\n    - 9\n  num_classes: 3\n",
            "dataset:\n  eval_class_ids:  # which\n    - 1  # cat\n    - 2\n    - 3\n"
            "  num_classes: 5\n",
        ),
        (
            "dataset: {num_classes: 3, eval_class_ids: [1]}  # x",
            "dataset: {num_classes: 5, eval_class_ids: [1, 2, 3]}  # x",
        ),
        ("dataset: {}\n", "dataset: {num_classes: 5, eval_class_ids: [1, 2, 3]}\n"),
        (
            "dataset:\r\n  eval_class_ids:\r\n  num_classes: 3",
            "dataset:\r\n  eval_class_ids: [1, 2, 3]\r\n  num_classes: 5",
        ),
        ("# only\n", "# only\ndataset:\n  num_classes: 5\n  eval_class_ids: [1, 2, 3]\n"),
        (
            "dataset:\n  eval_class_ids: [\n    1, # ü\n    2]\n  x: é # ü\n  num_classes: 4",
            "dataset:\n  eval_class_ids: [1, 2, 3]\n  x: é # ü\n  num_classes: 5",
        ),
    ],
)
def test_all_else_stays(before: str, after: str) -> None:
    assert with_values(before, VALUES, PATH) == after


@pytest.mark.parametrize("text", ["a: &x 3\ndataset:\n  num_classes: *x\n", "dataset: 3\n"])
def test_what_it_cannot_change_is_said(text: str) -> None:
    with pytest.raises(RequestError, match=r"set by hand: dataset\.num_classes: 5, .*\[1, 2, 3\]"):
        with_values(text, VALUES, PATH)


def test_what_is_merged_in_is_overridden() -> None:
    text = "b: &b {num_classes: 2}\ndataset:\n  <<: *b\n  q: 1\n"
    data = parse_yaml(with_values(text, VALUES, PATH), PATH).data
    assert data["dataset"]["num_classes"] == 5
    assert data["b"] == {"num_classes": 2}
