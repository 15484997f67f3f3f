"""What ranks tell each other."""

from __future__ import annotations

import pytest
import torch
from ranks import run_ranks
from torch import nn

from rtdetr_slurm.engine.process import distributed as d
from rtdetr_slurm.errors import RequestError


def use_collectives(context: d.Context) -> None:
    rank = context.rank
    assert (context.world_size, context.is_main) == (2, rank == 0)
    assert d.sum_over_ranks(torch.tensor(float(rank + 1))).item() == 3
    assert d.gather_objects({"rank": rank}) == ([{"rank": 0}, {"rank": 1}] if rank == 0 else [])
    assert d.on_main(lambda: f"from {rank}") == "from 0"

    def refuse() -> None:
        raise RequestError("no")

    with pytest.raises(RequestError, match="no"):
        d.on_main(refuse)

    norm = nn.BatchNorm1d(3)
    torch.manual_seed(0)
    means = torch.zeros(3)
    for _ in range(3):  # averaged at the end or at every step: the same
        batches = torch.randn(2, 8, 3)
        norm(batches[rank])
        means = 0.9 * means + 0.1 * batches.mean(1).mean(0)
    d.average_norm_statistics(d.plain_norms(nn.Sequential(norm)))
    torch.testing.assert_close(norm.running_mean, means)
    assert norm.num_batches_tracked == 3
    d.barrier()


def test_collectives() -> None:
    run_ranks(use_collectives)
