"""A detector on several ranks."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from model_support import small_model
from torch import nn

from rtdetr_slurm.engine.process.distributed import Context
from rtdetr_slurm.engine.training import parallel


def test_batch_norm_is_synchronised_over_nodes_with_one_gpu_each(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """TAO asks how many GPUs a node has; what counts is how many ranks there are."""

    def alone(objective: nn.Module, **_: Any) -> nn.Module:
        return objective

    monkeypatch.setattr(parallel, "DistributedDataParallel", alone)
    for ranks, kind in ((1, nn.BatchNorm2d), (2, nn.SyncBatchNorm)):
        model = small_model()
        parallel.distribute(model, model, Context(0, ranks, 0, 1, torch.device("cuda", 0)))
        norms = [m for m in model.modules() if isinstance(m, nn.modules.batchnorm._BatchNorm)]
        assert norms
        assert {type(norm) for norm in norms} == {kind}
