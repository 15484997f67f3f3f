"""Seeds made of numbers."""

from __future__ import annotations

from rtdetr_slurm.engine.datasets.seeds import mix_seed


class TestSeeds:
    def test_seeds_are_spread(self) -> None:
        assert len({mix_seed(0, i, j) for i in range(30) for j in range(30)}) == 900
        assert mix_seed(1234, 5, 6) == 5843002824270392582
