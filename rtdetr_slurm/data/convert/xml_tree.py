"""XML files. Standard library only."""

from __future__ import annotations

import math
from pathlib import Path
from xml.etree import ElementTree
from xml.parsers import expat

from rtdetr_slurm.data.convert.found import Report
from rtdetr_slurm.records import read_file


def read_tree(path: Path, top: str, report: Report) -> ElementTree.Element | None:
    """The tree of a file whose top element is `top`; None: it is none, which is a problem.

    A document type is refused: it could make a small file fill the memory.
    """
    builder = ElementTree.TreeBuilder()
    parser = expat.ParserCreate()
    parser.buffer_text = True

    def refuse(*_: object) -> None:
        raise ValueError("it has a document type (DOCTYPE), which no annotations need")

    parser.StartDoctypeDeclHandler = refuse
    parser.StartElementHandler = builder.start
    parser.EndElementHandler = builder.end
    parser.CharacterDataHandler = builder.data
    try:
        parser.Parse(read_file(path), True)
        tree = builder.close()
    except (expat.ExpatError, ValueError) as error:
        report.problem(f"{path}: not XML as it should be: {error}")
        return None
    if tree.tag != top:
        report.problem(f"{path}: its top is <{tree.tag}>, not <{top}>")
        return None
    return tree


def is_tree(path: Path, top: str) -> bool:
    """Whether a file begins as XML with such a top element does."""
    start = read_file(path)[:2000].decode("utf-8", "replace")
    return f"<{top}>" in start or f"<{top} " in start


def number_in(text: str | None) -> float | None:
    try:
        number = float(text or "")
    except ValueError:
        return None
    return number if math.isfinite(number) else None
