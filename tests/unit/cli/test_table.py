"""Columns of text."""

from __future__ import annotations

from rtdetr_slurm.cli.table import table


def test_a_column_without_anything_is_left_out() -> None:
    text = table(("A", "B", "C"), [["1", "", "3"], ["2", ""]], ("", ""), coloured="C")
    assert text.plain == "A  C\n1  3\n2\n"


def test_without_rows_there_is_no_table() -> None:
    assert table(("A", "B"), [], (), coloured="B").plain == ""


def test_columns_line_up_whatever_is_in_them() -> None:
    rows = [
        ["a", "名前", "success", "x"],
        ["bb", "\x1b[31m", "failed", "y"],
        ["c", "", "unreadable"],
    ]
    text = table(("RUN", "NAME", "STATE", "END"), rows, ("green", "red", "blue"), coloured="STATE")
    assert text.plain.splitlines() == [
        "RUN  NAME      STATE       END",
        "a    名前      success     x",
        "bb   \\x1b[31m  failed      y",
        "c              unreadable",
    ]
    coloured = {str(span.style): text.plain[span.start : span.end] for span in text.spans}
    assert coloured | {"bold": ""} == {
        "bold": "",
        "green": "success",
        "red": "failed",
        "blue": "unreadable",
    }
