"""A JSON object member by member is what json.load makes of it."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from rtdetr_slurm.data import json_stream
from rtdetr_slurm.data.json_stream import NotJson, stream_object

CONTENT: dict[str, Any] = {
    "a": [1, 23, 456.75, -1e-3, 'x, \\ " ] }', None, True, [], [1, [2]], {"k": ["v", {}]}],
    "b": 12345,
    "c": {"d": [1, 2, {"e": "ü€😀"}]},
    "empty": [],
    "f": "text",
    "last": 67,
}


def collected(path: Path) -> dict[str, Any]:
    return {k: [*v] if isinstance(v, Iterator) else v for k, v in stream_object(path)}


@pytest.mark.parametrize("chunk", [1, 2, 5, 1 << 18])
@pytest.mark.parametrize("indent", [None, 2])
def test_wherever_a_part_ends(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, chunk: int, indent: int | None
) -> None:
    monkeypatch.setattr(json_stream, "CHUNK", chunk)
    path = tmp_path / "a.json"
    path.write_text(json.dumps(CONTENT, indent=indent, ensure_ascii=False) + "\n")
    assert collected(path) == CONTENT


def test_a_list_that_nobody_reads_is_passed(tmp_path: Path) -> None:
    path = tmp_path / "a.json"
    path.write_text(json.dumps(CONTENT))
    assert [key for key, _ in stream_object(path)] == [*CONTENT]


@pytest.mark.parametrize(
    "text",
    [
        *("", " ", "{", "[]", "1", "nonsense", "{1: 2}", '{"a"}', '{"a": }', '{"a": 1,}'),
        *('{"a": [1,]}', '{"a": [1 2]}', '{"a": [1', '{"a": "b', '{"a": tru}', '{"a": 1} 2'),
    ],
)
@pytest.mark.parametrize("chunk", [1, 1 << 18])
def test_what_is_not_an_object_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, text: str, chunk: int
) -> None:
    monkeypatch.setattr(json_stream, "CHUNK", chunk)
    path = tmp_path / "a.json"
    path.write_text(text)
    with pytest.raises(NotJson):
        collected(path)


@pytest.mark.parametrize("chunk", [1, 4, 1 << 18])
def test_the_place_is_the_one_in_the_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, chunk: int
) -> None:
    monkeypatch.setattr(json_stream, "CHUNK", chunk)
    path = tmp_path / "a.json"
    path.write_text('{"a": [1,\n 2,\n  {"b": 1},\n  {"b": nul}]}')
    with pytest.raises(json.JSONDecodeError) as expected:
        json.loads(path.read_text())
    place = f"at line {expected.value.lineno} column {expected.value.colno}"
    with pytest.raises(NotJson, match=place):
        collected(path)
