"""What of a step falls to each rank."""

from __future__ import annotations

import pytest

from rtdetr_slurm.engine.training.elastic import Share, divided


@pytest.mark.parametrize(
    ("together", "ranks", "most", "share"),
    [
        (16, 4, 4, Share(4, 1)),
        (16, 8, 4, Share(2, 1)),
        (16, 2, 4, Share(8, 2)),  # no more at a time than before
        (16, 1, 4, Share(16, 4)),
        (12, 1, 5, Share(12, 3)),
        (7, 1, 4, Share(7, 7)),
        (16, 3, 4, None),
        (4, 8, 1, None),
    ],
)
def test_a_step_is_shared(together: int, ranks: int, most: int, share: Share | None) -> None:
    assert divided(together, ranks, most) == share
