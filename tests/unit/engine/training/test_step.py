"""What a training step makes the host wait for."""

from __future__ import annotations

import torch
from model_support import images, small_config, small_model, targets

from benchmarks.counters import host_reads
from rtdetr_slurm.engine.losses import build_criterion
from rtdetr_slurm.engine.training.ema import Ema
from rtdetr_slurm.engine.training.objective import DetectionObjective
from rtdetr_slurm.engine.training.optim import build_optimizer
from rtdetr_slurm.spec.train import OptimConfig


def test_the_matcher_alone_makes_the_host_wait_for_the_device() -> None:
    model = small_model().train()
    objective = DetectionObjective(model, build_criterion(small_config()), "fp32")
    optimizer, ema = build_optimizer(model, OptimConfig()), Ema(model, 0.99)
    pixels, boxes, number = images(), targets(3, 1), torch.tensor(4.0)

    def step() -> None:
        loss, _ = objective(pixels, boxes, number)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 0.1)
        optimizer.step()
        optimizer.zero_grad()
        ema.update()

    step()  # position code and anchors are made, and kept
    assert host_reads(step) == ["cpu"]
    assert host_reads(lambda: (step(), number.item())) == ["cpu", "item"]
    assert host_reads(lambda: pixels[pixels > 0.5]) == ["nonzero"]
