"""Which parts of a recipe are at work when."""

from __future__ import annotations

import pytest

from rtdetr_slurm.engine.recipe import Recipe


def test_rtdetr_does_the_same_in_all_epochs() -> None:
    recipe = Recipe("rtdetr", 72)
    assert all(recipe.augments(epoch) and recipe.resizes(epoch) for epoch in range(72))
    assert not recipe.dense


@pytest.mark.parametrize(("epochs", "end"), [(72, 71), (120, 117), (24, 23), (2, 1), (1, 0)])
def test_rtdetrv2_ends_plainly(epochs: int, end: int) -> None:
    """71 of 72 and 117 of 120 are published."""
    recipe = Recipe("rtdetrv2", epochs)
    assert [recipe.augments(epoch) for epoch in range(epochs)] == [e < end for e in range(epochs)]
    assert [recipe.resizes(epoch) for epoch in range(epochs)] == [e < end for e in range(epochs)]
    assert not recipe.dense


def test_deim_has_four_parts() -> None:
    """[4, 64, 117] of 120 are published."""
    recipe = Recipe("deim", 120)
    assert recipe.dense == range(4, 64)
    assert [e for e in range(120) if not recipe.augments(e)] == [*range(4), *range(117, 120)]
    assert [e for e in range(120) if not recipe.resizes(e)] == [*range(117, 120)]


@pytest.mark.parametrize(("epochs", "dense"), [(1, 0), (2, 1), (12, 6), (24, 12), (60, 30)])
def test_half_of_deim_is_dense(epochs: int, dense: int) -> None:
    recipe = Recipe("deim", epochs)
    assert len(recipe.dense) == dense
    assert not recipe.augments(epochs - 1)
