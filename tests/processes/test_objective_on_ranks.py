"""The objective of training on two ranks."""

from __future__ import annotations

from pathlib import Path

import torch
from model_support import images, small_config, small_model, targets
from ranks import run_ranks
from torch.nn.parallel import DistributedDataParallel

from rtdetr_slurm.engine.losses import build_criterion
from rtdetr_slurm.engine.process.distributed import Context
from rtdetr_slurm.engine.training.objective import DetectionObjective


def gradients_of_rank(context: Context, folder: Path) -> None:
    objective = DetectionObjective(small_model(), build_criterion(small_config()), "fp32").train()
    wrapped = DistributedDataParallel(objective, find_unused_parameters=False)
    for number in range(2):  # DDP complains about the first step in the second
        batch = targets(3, 1) if context.rank == number else targets(0, 0)
        loss, _ = wrapped(images(), batch, torch.tensor(2.0))
        objective.zero_grad()
        loss.backward()
    grads = {name: parameter.grad for name, parameter in objective.detector.named_parameters()}
    torch.save(grads, folder / f"{context.rank}.pth")


def test_one_rank_without_boxes(tmp_path: Path) -> None:
    """No hang, the same gradients, none unused."""
    run_ranks(gradients_of_rank, tmp_path)
    one, two = (torch.load(tmp_path / f"{rank}.pth", weights_only=True) for rank in (0, 1))
    assert one.keys() == two.keys()
    for name, grad in one.items():
        assert torch.isfinite(grad).all(), name
        assert torch.equal(grad, two[name]), name
    assert sum(grad.abs().sum() > 0 for grad in one.values()) > 0.9 * len(one)
