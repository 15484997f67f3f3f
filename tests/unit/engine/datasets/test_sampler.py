"""Which images a rank trains on."""

from __future__ import annotations

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
