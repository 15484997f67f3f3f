"""Reading and writing YAML: values, positions, and what is refused."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml

from rtdetr_slurm.errors import RequestError
from rtdetr_slurm.yaml_source import (
    Position,
    dotted,
    load_yaml,
    parse_value,
    parse_yaml,
    show,
    to_yaml,
)


def parse(text: str) -> dict[str, Any]:
    return parse_yaml(text, Path("f.yaml")).data


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("1e-4", 1e-4),
        ("1E5", 1e5),
        (".5", 0.5),
        ("-1.5e+3", -1500.0),
        ("1_000", 1000),
        ("0x10", 16),
        ("0", 0),
        ("-1", -1),
        ("010", "010"),
        ("1:30:00", "1:30:00"),
        ("12:00:00", "12:00:00"),
        ("2024-05-01", "2024-05-01"),
        ("on", True),
        ("off", False),
        ("true", True),
        ("~", None),
        ("", None),
        ("'1'", "1"),
        ("[0, 1]", [0, 1]),
        ("s3://bucket/x.tar.gz", "s3://bucket/x.tar.gz"),
        ("1.2.3", "1.2.3"),
        ("e5", "e5"),
    ],
)
def test_scalars(text: str, value: Any) -> None:
    assert parse(f"a: {text}\n")["a"] == value
    assert type(parse(f"a: {text}\n")["a"]) is type(value)


def test_keys_are_text() -> None:
    assert parse("on: 1\n1: a\nnull: b\n") == {"on": 1, "1": "a", "null": "b"}


def test_positions_of_values_and_keys() -> None:
    source = parse_yaml("a:\n  b: [1, {c: x}]\n", Path("f.yaml"))
    assert source.positions[("a", "b", 1, "c")] == Position(2, 14)
    assert source.key_positions[("a", "b", 1, "c")] == Position(2, 11)
    assert source.origin(("a", "b", 0)) == Position(2, 7)
    assert source.origin(("a", "b"), key=True) == Position(2, 3)
    # What is not there is placed at the key of the section it would be in.
    assert source.origin(("a", "missing")) == Position(1, 1)
    assert source.origin(("a", "b", 1, "missing")) == Position(2, 10)
    assert source.origin(("other",)) == Position(1, 1)


def test_aliases_and_merge_keys() -> None:
    data = parse("base: &b {x: 1, y: 2}\nmore:\n  <<: *b\n  y: 3\nsame: *b\n")
    assert data["more"] == {"x": 1, "y": 3}
    assert data["same"] == {"x": 1, "y": 2}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a: 1\nb: [1, 2\n", "f.yaml:3:1: not valid YAML"),
        ("a: 1\na: 2\n", "f.yaml:2:1: key 'a' is given twice (first at line 1)"),
        ("a:\n  b: 1\n  b: 2\n", "f.yaml:3:3: key 'b' is given twice"),
        ("- 1\n", "f.yaml:1:1: found [1]; allowed: `key: value` lines"),
        ("just text\n", "f.yaml:1:1: found 'just text'"),
        ("a: &x [*x]\n", "an alias that contains itself"),
        ("a: !!python/object:os.system x\n", "f.yaml:1:4: not valid YAML: could not determine"),
        ("a: !Thing {b: 1}\n", "f.yaml:1:4: the tag !Thing is not allowed here"),
        ("? [1]\n: 2\n", "a key must be text"),
        ("a: 1\n---\nb: 2\n", "not valid YAML"),
        ("a: \x00\n", "not valid YAML"),
        ("a: " + "[" * 900 + "]" * 900, "f.yaml: sections in sections, too deep to read"),
        ("a: *nothing\n", "not valid YAML: found undefined alias"),
    ],
)
def test_refused(text: str, message: str) -> None:
    with pytest.raises(RequestError) as error:
        parse(text)
    assert message in str(error.value)


def test_a_bomb_of_aliases_is_refused_quickly() -> None:
    lines = ["a0: &a0 [x, x, x, x, x, x, x, x, x, x]"]
    lines += [f"a{i}: &a{i} [{', '.join([f'*a{i - 1}'] * 10)}]" for i in range(1, 9)]
    with pytest.raises(RequestError, match="unfolds to more than"):
        parse("\n".join(lines))


def test_files_that_cannot_be_read(tmp_path: Path) -> None:
    with pytest.raises(RequestError, match=r"none\.yaml: no such file"):
        load_yaml(tmp_path / "none.yaml")
    with pytest.raises(RequestError, match="Is a directory"):
        load_yaml(tmp_path)
    (tmp_path / "latin.yaml").write_bytes("a: caf\xe9\n".encode("latin-1"))
    with pytest.raises(RequestError, match="not UTF-8 text"):
        load_yaml(tmp_path / "latin.yaml")


def test_empty_file_and_byte_order_mark(tmp_path: Path) -> None:
    path = tmp_path / "f.yaml"
    path.write_bytes(b"\xef\xbb\xbf# nothing\n")
    assert load_yaml(path).data == {}
    path.write_bytes(b"\xef\xbb\xbfa: 1\n")
    assert load_yaml(path).data == {"a": 1}


def test_values_of_a_command_line() -> None:
    assert parse_value("[0, 1]") == [0, 1]
    assert parse_value("1e-4") == 1e-4
    assert parse_value("#fff") == "#fff"
    assert parse_value("null") is None
    with pytest.raises(RequestError, match=r"^value '\[0': not valid YAML: did not find"):
        parse_value("[0")


def test_written_text_reads_back_here_and_elsewhere() -> None:
    data = {
        "text": ["1e-4", "1:30:00", "010", "on", "null", "", "a: b", "#x", "é", "2024-01-01", "5"],
        "numbers": [1e-5, 1.0, 3, -1],
        "rest": {"yes": True, "none": None, "empty": {}, "list": []},
        "sources": [{"image_dir": "/a b", "json_file": "/c"}],
    }
    text = to_yaml(data)
    assert parse(text) == data
    assert yaml.safe_load(text) == data
    assert "  - image_dir: /a b\n" in text
    assert "numbers: [1.0e-05, 1.0, 3, -1]\n" in text


def test_paths_and_values_in_messages() -> None:
    assert dotted(("a", "b", 0, "c")) == "a.b[0].c"
    assert dotted(("a", "[]", "c")) == "a[].c"
    assert show("8") == "'8'"
    assert [show(value) for value in (1, 0, True, False, None, 1.5)] == [
        "1", "0", "true", "false", "null", "1.5",
    ]  # fmt: skip
    assert show({"x": 1}) == "a section with x"
    assert len(show(["long"] * 100)) == 60
