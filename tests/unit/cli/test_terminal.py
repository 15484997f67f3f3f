"""What a terminal would obey is shown instead; and there is one way to it."""

from __future__ import annotations

import ast
import json
from pathlib import Path

import pytest

from rtdetr_slurm import cli
from rtdetr_slurm.cli import terminal

Capture = pytest.CaptureFixture[str]


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("plain, größe → 語 [red]", "plain, größe → 語 [red]"),
        ("\x1b[2J\a", "\\x1b[2J\\x07"),
        ("\x9b31m\x7f", "\\x9b31m\\x7f"),
        ("a\nb\r\t", "a\\nb\\r\\t"),
        ("\u202etxt.exe\u2028", "\\u202etxt.exe\\u2028"),
        ("\udc80\ud800", "\\udc80\\ud800"),
    ],
)
def test_what_is_no_printable_text_is_shown(text: str, shown: str) -> None:
    assert terminal.shown(text) == shown


def test_lines_stay_lines(capsys: Capture) -> None:
    terminal.out_lines("a\tb\x1b\n\nc\n")
    terminal.out_log("10%\r20%\x1b[K")
    terminal.note("x\ny\x1b")
    assert capsys.readouterr() == ("a\tb\\x1b\n\nc\n10%\n20%\\x1b[K\n", "x\ny\\x1b\n")


def test_json_has_no_control_character(capsys: Capture) -> None:
    terminal.document({"a": "\x1b\x7f\x9b\ud800"})
    out = capsys.readouterr().out
    assert json.loads(out) == {"a": "\x1b\x7f\x9b\ud800"}
    assert out.replace("\n", "").isprintable()


def test_nobody_else_prints() -> None:
    found = [
        f"{path.name}:{node.lineno}"
        for path in Path(cli.__file__).parent.glob("*.py")
        if path.name != "terminal.py"
        for node in ast.walk(ast.parse(path.read_text()))
        if (isinstance(node, ast.Name) and node.id == "print")
        or (isinstance(node, ast.Attribute) and node.attr in ("stdout", "stderr"))
    ]
    assert found == []
