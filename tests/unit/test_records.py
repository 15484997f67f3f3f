"""JSON becomes the declared types, or an error that says file and field."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from enum import Enum
from pathlib import Path
from typing import Any, Literal, TypedDict

import pytest
from launch_support import STAGE, make_run

from rtdetr_slurm.plan.model import Array, Dependency, Input, Origin, Plan
from rtdetr_slurm.records import (
    BadRecord,
    Moment,
    Prose,
    checked,
    names_in,
    open_file,
    read_file,
    read_json,
    read_json_lines,
)
from rtdetr_slurm.runs.run import open_run


class Colour(Enum):
    RED = "red"


@dataclass(frozen=True)
class Inner:
    number: int
    share: float | None = None


@dataclass(frozen=True)
class Outer:
    name: str
    colour: Colour
    kind: Literal["a", "b"]
    inner: Inner
    many: tuple[Inner, ...]
    table: Mapping[str, Inner | None]
    anything: Mapping[str, Any]


class Line(TypedDict, total=False):
    text: Prose
    mixed: float | str | None


GOOD = {
    "name": "n",
    "colour": "red",
    "kind": "a",
    "inner": {"number": 1, "share": 1},
    "many": [{"number": 2, "share": 0.5}],
    "table": {"x": None, "y": {"number": 3, "share": None}},
    "anything": {"a": [1, {"b": None}]},
}


def test_what_fits_becomes_values() -> None:
    assert checked(Outer, GOOD, "f") == Outer(
        "n",
        Colour.RED,
        "a",
        Inner(1, 1),
        (Inner(2, 0.5),),
        {"x": None, "y": Inner(3)},
        {"a": [1, {"b": None}]},
    )
    # A record of an older version lacks a field that has come with a default.
    assert checked(Outer, GOOD | {"inner": {"number": 1}}, "f").inner == Inner(1)
    line = {"text": "a\0\ud800", "mixed": "1", "further": object}
    assert checked(Line, line, "f") == line
    assert checked(tuple[int, ...], [1, 2], "f") == (1, 2)


def deep(levels: int) -> Any:
    node: Any = 1
    for _ in range(levels):
        node = {"a": node}
    return node


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"name": 1}, "name: found 1; expected text"),
        ({"name": "a\0"}, "name: found 'a\\x00'; expected text"),
        ({"name": "\ud800"}, "name: found '\\ud800'; expected text"),
        ({"name": None}, "name: found None; expected text"),
        ({"name": "x" * 99, "kind": "x" * 99}, "kind: found 'xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx"),
        ({"colour": "blue"}, "colour: found 'blue'; expected one of red"),
        ({"colour": []}, "colour: found a list; expected one of red"),
        ({"kind": "c"}, "kind: found 'c'; expected one of a, b"),
        ({"inner": None}, "inner: found None; expected an object"),
        ({"inner": {"number": True, "share": 1}}, "inner.number: found True; expected a whole"),
        ({"inner": {"number": 1.0, "share": 1}}, "inner.number: found 1.0; expected a whole num"),
        ({"inner": {"number": 2**63, "share": 1}}, "inner.number: found 9223372036854775808; exp"),
        ({"inner": {"number": 1, "share": "1"}}, "inner.share: found '1'; expected a number"),
        ({"inner": {"number": 1, "share": 1e999}}, "inner.share: found inf; expected a number"),
        ({"inner": {"share": 1}}, "inner.number: this field is missing"),
        ({"inner": {"number": 1, "share": 1, "x": 1}}, "inner.'x': this version knows no such"),
        ({"many": {}}, "many: found a dict; expected a list"),
        ({"many": [GOOD["inner"], 3]}, "many.1: found 3; expected an object"),
        ({"table": {"x": 1}}, "table.x: found 1; expected an object"),
        ({"anything": deep(60)}, "nested more than 50 levels deep"),
        ({"anything": {"a": float("nan")}}, "anything.a: found nan; expected a number"),
        ({"anything": {"a": ["\ud800"]}}, "anything.a.0: found '\\ud800'; expected text"),
    ],
)
def test_what_does_not_is_told_by_its_field(change: dict[str, Any], said: str) -> None:
    with pytest.raises(BadRecord) as error:
        checked(Outer, GOOD | change, "f.json", 7)
    assert str(error.value).startswith("f.json:7: ")
    assert said in str(error.value)


def test_a_files_content_is_read_and_nothing_else(tmp_path: Path) -> None:
    made = {"file": tmp_path / "file", "folder": tmp_path, "none": tmp_path / "none"}
    made["file"].write_text('{"a": 1}')
    (tmp_path / "loop").symlink_to(tmp_path / "loop")
    os.mkfifo(tmp_path / "pipe")
    assert read_file(made["file"]) == b'{"a": 1}'
    assert read_json(made["file"]) == {"a": 1}
    with pytest.raises(FileNotFoundError):
        read_file(made["none"])
    assert list(read_json_lines(made["none"])) == []
    assert names_in(made["none"]) == []
    for path in (tmp_path, tmp_path / "loop", tmp_path / "pipe", Path("/dev/zero"), Path("a\0b")):
        with pytest.raises(BadRecord):
            open_file(path)
    with pytest.raises(BadRecord):
        names_in(made["file"])


@pytest.mark.parametrize(
    "text", ["", "[", "NaN", "[Infinity]", "1" * 9999, "[" * 100_000, "\xff", "\ufeff{}"]
)
def test_what_is_no_json_is_told(tmp_path: Path, text: str) -> None:
    (tmp_path / "f").write_bytes(text.encode("latin-1") if text == "\xff" else text.encode())
    with pytest.raises(BadRecord, match="/f: this is not JSON"):
        read_json(tmp_path / "f")


@pytest.mark.parametrize("text", ["", "2026", "2026-01-01", "2026-01-01T00:00", "x" * 99])
def test_a_moment_has_a_time_zone(text: str) -> None:
    with pytest.raises(BadRecord, match=r"f: found .*; expected a time"):
        checked(Moment, text, "f")


OTHER = replace(STAGE, name="other")


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda plan: plan["stages"][0].update(name="../../x"), "'../../x' is no name of a stage"),
        (lambda plan: plan["stages"][0].update(name="--x"), "'--x' is no name of a stage"),
        (lambda plan: plan["stages"][0].update(action="x"), "no action 'x'"),
        (lambda plan: plan["stages"][0].update(results_dir="x"), "results_dir 'x' is not absolute"),
        (lambda plan: plan["stages"][0]["launch"].update(scheduler="x"), "launch.scheduler: found"),
        (
            lambda plan: plan["stages"][0]["resources"].update(nodes=10**9),
            "nodes: found 1000000000",
        ),
        (lambda plan: plan["stages"][1]["array"].update(size=10**12), "size: found 1000000000000"),
        (lambda plan: plan["stages"].reverse(), "other needs train, which is no stage before it"),
        (lambda plan: plan["stages"][1].update(name="train"), "two stages called 'train'"),
        (lambda plan: plan["stages"].clear(), "a plan has at least one stage"),
        (
            lambda plan: plan["stages"][0]["container"]["image"].update(path="/x"),
            "there is no record of /x",
        ),
    ],
)
def test_a_plan_that_cannot_be_is_no_plan(tmp_path: Path, change: Any, said: str) -> None:
    other = replace(
        OTHER,
        array=Array(2),
        depends_on=(Dependency(Origin("train")),),
        inputs=(Input("a", "parent_model", Origin("train")),),
    )
    run = make_run(tmp_path, STAGE, other)
    manifest = json.loads((run.path / "run.json").read_text())
    assert checked(Plan, manifest["plan"], "") == run.plan
    change(manifest["plan"])
    (run.path / "run.json").write_text(json.dumps(manifest))
    with pytest.raises(BadRecord, match=r"run\.json: .*" + re.escape(said)):
        open_run(run.path)
