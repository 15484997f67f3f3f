"""Which images a rank trains on."""

from __future__ import annotations

import itertools

import pytest

from rtdetr_slurm.engine.datasets.sampler import DistributedBatchSampler


class TestSampler:
    def batches(
        self, rank: int, ranks: int, epoch: int, first: int = 0, seed: int = 0
    ) -> list[list[tuple[int, int]]]:
        order = DistributedBatchSampler(26, 3, rank, ranks, seed)
        order.set_position(epoch, first)
        assert len(list(order)) == len(order)
        return list(order)

    def test_ranks_share_an_epoch(self) -> None:
        both = [self.batches(rank, 2, epoch=5) for rank in (0, 1)]
        assert [len(b) for b in both] == [4, 4]  # 26 // (3 x 2)
        images = [image for batches in both for batch in batches for _, image in batch]
        assert len(images) == len(set(images)) == 24
        assert {epoch for b in both for batch in b for epoch, _ in batch} == {5}

    def test_epochs_and_seeds_differ(self) -> None:
        assert self.batches(0, 1, epoch=0) != self.batches(0, 1, epoch=1)
        assert self.batches(0, 1, epoch=0) != self.batches(0, 1, epoch=0, seed=1)

    def test_goes_on_within_an_epoch(self) -> None:
        whole = self.batches(1, 2, epoch=2)
        assert self.batches(1, 2, epoch=2, first=3) == whole[3:]
        assert self.batches(1, 2, epoch=2, first=4) == []

    @pytest.mark.parametrize(
        "turns",
        [[(4, 2), (2, 1), (1, 5)], [(1, 3), (3, 2), (6, 3)], [(2, 0), (12, 8)]],
    )
    def test_goes_on_with_other_ranks(self, turns: list[tuple[int, int]]) -> None:
        """Each turn is of so many ranks and makes so many of the epoch's eight steps of 12 images:
        each has the same images as with one rank, and the epoch each of them once."""
        whole = DistributedBatchSampler(101, 12, 0, 1, seed=3)
        whole.set_position(4)
        steps: list[set[int]] = []
        for ranks, number in turns:
            samplers = [
                DistributedBatchSampler(101, 12 // ranks, rank, ranks, seed=3)
                for rank in range(ranks)
            ]
            for sampler in samplers:
                sampler.set_position(4, len(steps))
                assert sampler.steps_per_epoch == 8
            of_ranks = zip(*(itertools.islice(one, number) for one in samplers), strict=True)
            for batches in of_ranks:
                images = [image for batch in batches for _, image in batch]
                assert len(images) == 12
                steps.append(set(images))
        assert steps == [{image for _, image in batch} for batch in whole]
        assert len(set().union(*steps)) == 8 * 12
