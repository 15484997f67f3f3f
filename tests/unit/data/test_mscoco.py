"""MS COCO's ids as class indices."""

from __future__ import annotations

from array import array
from pathlib import Path

import pytest

from rtdetr_slurm.data.coco import CocoAnnotations
from rtdetr_slurm.data.mscoco import is_mscoco, without_gaps
from rtdetr_slurm.errors import RequestError


def test_known_ids() -> None:
    """Of the published list of categories: the first, those beside gaps, and the last."""
    known = {1: 0, 11: 10, 13: 11, 25: 23, 27: 24, 28: 25, 31: 26, 67: 60, 70: 61, 84: 73, 90: 79}
    names = {category: f"name {category}" for category in known}
    before = CocoAnnotations(Path("a.json"), names, category_ids=array("q", known))
    after = without_gaps(before)
    assert after.categories == {known[category]: name for category, name in names.items()}
    assert list(after.category_ids) == list(known.values())
    assert before.categories == names


def test_another_data_sets_ids_are_refused() -> None:
    other = CocoAnnotations(Path("a.json"), {1: "cat", 12: "street sign"})
    with pytest.raises(RequestError, match=r"a\.json has category id 12 \('street sign'\), which"):
        without_gaps(other)


def test_another_data_set_that_counts_from_1_is_refused() -> None:
    """Some of MS COCO's categories alone are well."""
    other = CocoAnnotations(Path("a.json"), {1: "cat", 2: "dog"})
    with pytest.raises(RequestError, match=r"ids \[1, 2\].*id 1 is 'cat', and there 'person'"):
        without_gaps(other)
    assert without_gaps(CocoAnnotations(Path("a.json"), {1: "person"})).categories == {0: "person"}


def test_ids_with_all_the_gaps_are_mscocos() -> None:
    gaps = {12, 26, 29, 30, 45, 66, 68, 69, 71, 83}
    names = {number: f"name {number}" for number in range(1, 91) if number not in gaps}
    assert is_mscoco(CocoAnnotations(Path("a.json"), names))
    assert not is_mscoco(CocoAnnotations(Path("a.json"), {**names, 12: "street sign"}))
    assert not is_mscoco(CocoAnnotations(Path("a.json"), dict(enumerate(names.values()))))
