"""One numbering of the classes for all parts of a data set. Standard library only."""

from __future__ import annotations

from collections.abc import Sequence

from rtdetr_slurm.data.convert.found import FoundSplit, Report

_ROOM = 4
"""Ids up to so many times the number of classes are kept: each id below the largest is an output
of the network, whether there is such a class or not. MS COCO's own leave gaps."""


def number_classes(splits: Sequence[FoundSplit], report: Report) -> dict[str, int]:
    """Class name → category id, sorted by id: the tool's ids where they can be kept, else from 0 on
    in the tool's order."""
    ids: dict[str, int | None] = {}
    agree = True
    for split in splits:
        for name, number in split.classes.items():
            agree &= ids.setdefault(name, number) == number
    for name in ids:
        if not name or not name.isprintable():
            report.problem(f"class name {name!r} is none that a list of names can hold")
    given = [number for number in ids.values() if number is not None]
    if not given:
        return {name: number for number, name in enumerate(ids)}
    whole = len(given) == len(ids) == len(set(given))
    if agree and whole and min(given) >= 0 and max(given) < max(_ROOM * len(ids), 10):
        return dict(sorted(zip(ids, given, strict=True), key=_second))
    why = (
        "class whose id is another one elsewhere"
        if not agree
        else "class without an id, or with one that is negative or too large for a class index"
    )
    for name, number in ids.items():
        report.changed(f"{why}: all classes are numbered from 0", f"{name!r}, {number}")
    return {name: number for number, name in enumerate(ids)}


def _second(pair: tuple[str, int]) -> int:
    return pair[1]
