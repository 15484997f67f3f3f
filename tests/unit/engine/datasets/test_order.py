"""The images of an epoch, with weights and without."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest
from table_support import table_of

from rtdetr_slurm.engine.datasets.order import draw_images, epoch_order, image_weights
from rtdetr_slurm.spec.engine import SamplingConfig
from rtdetr_slurm.vision.table import Table

BOX = (0.0, 0.0, 10.0, 10.0)


def table() -> Table:
    """Images: a cat and a dog; a crowd of dogs and a cat; nothing; a dog."""
    boxes = [(0, 1, BOX), (0, 2, BOX), (1, 1, BOX), (3, 2, BOX)]
    return table_of(*boxes, crowds=[(1, 2, BOX)], images=4)


class TestOrder:
    def test_without_weights_each_image_comes_once(self) -> None:
        assert sorted(epoch_order(10, 1, 2)) == list(range(10))

    def test_is_a_function_of_seed_epoch_and_weights(self) -> None:
        weights = np.array([1.0, 2, 3, 4])
        one = epoch_order(4, 1, 2, weights)
        assert one == epoch_order(4, 1, 2, weights.copy())
        others = [epoch_order(4, *at, weights) for at in [(1, epoch) for epoch in range(3, 9)]]
        assert any(other != one for other in others)

    def test_equal_weights_are_as_none(self) -> None:
        assert sorted(epoch_order(1000, 3, 0, np.full(1000, 0.3))) == list(range(1000))

    @pytest.mark.parametrize("epoch", range(5))
    def test_images_come_in_proportion(self, epoch: int) -> None:
        weights = np.array([0.0, 1.0, 2.5, 0.1] * 25)
        order = epoch_order(100, 7, epoch, weights)
        assert len(order) == 100
        counts = Counter(image % 100 for image in order)
        expected = weights / weights.sum() * 100
        for image in range(100):
            assert np.floor(expected[image]) <= counts[image] <= np.ceil(expected[image])

    def test_an_image_that_comes_again_has_another_number(self) -> None:
        order = epoch_order(10, 7, 0, np.array([5.0] + [5 / 9] * 9))
        assert len({*order}) == 10
        assert sorted(number for number in order if number % 10 == 0) == [0, 10, 20, 30, 40]

    def test_chance_decides_who_is_rounded_up(self) -> None:
        weights = np.array([0.1] * 50 + [1.9] * 50)
        orders = (np.array(epoch_order(100, 0, epoch, weights)) % 100 for epoch in range(400))
        mean = sum(np.bincount(order, minlength=100) for order in orders)
        np.testing.assert_allclose(mean / 400, weights, atol=0.1)

    def test_neighbours_do_not_exclude_one_another(self) -> None:
        weights = np.array([0.5, 0.5, *[1.0] * 98])
        orders = [{*epoch_order(100, 0, epoch, weights)} for epoch in range(40)]
        assert any({0, 1} <= order for order in orders)


class TestDraws:
    def test_in_proportion(self) -> None:
        drawn = draw_images(np.random.default_rng(0), 3, np.array([1.0, 0.0, 3.0]), 4000)
        counts = np.bincount(drawn, minlength=3)
        assert counts[1] == 0
        assert counts[2] / counts[0] == pytest.approx(3, rel=0.1)

    def test_all_alike(self) -> None:
        drawn = draw_images(np.random.default_rng(0), 3, None, 3000)
        np.testing.assert_allclose(np.bincount(drawn), 1000, rtol=0.1)


class TestWeights:
    def test_nothing_said(self) -> None:
        assert image_weights(table(), SamplingConfig()) is None

    def test_the_largest_of_its_classes_counts(self) -> None:
        weights = image_weights(table(), SamplingConfig(class_weights={"dog": 3.0}))
        assert weights is not None
        assert weights.tolist() == [3, 1, 1, 3]  # a crowd is no dog that is learned
        low = image_weights(table(), SamplingConfig(class_weights={"cat": 0.5, "dog": 0.0}))
        assert low is not None
        assert low.tolist() == [0.5, 0.5, 1, 0]

    def test_sources_and_classes_multiply(self) -> None:
        images = table()
        images.source[2:] = 1
        sampling = SamplingConfig(class_weights={"dog": 3.0}, source_weights=[1.0, 2.0])
        weights = image_weights(images, sampling)
        assert weights is not None
        assert weights.tolist() == [3, 1, 2, 6]
