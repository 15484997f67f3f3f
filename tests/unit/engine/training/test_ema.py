"""Averaged weights."""

from __future__ import annotations

import math

import torch
from torch import nn

from rtdetr_slurm.engine.training.ema import Ema


class TestEma:
    def model(self) -> nn.Module:
        return nn.Sequential(nn.Linear(2, 3), nn.BatchNorm1d(3))

    def test_follows_by_hand_computed_decay(self) -> None:
        model = self.model()
        ema = Ema(model, decay=0.9)
        expected = model[0].weight.detach().clone()
        for update in range(1, 4):
            nn.init.normal_(model[0].weight)
            ema.update()
            decay = 0.9 * (1 - math.exp(-update / 2000))
            expected = decay * expected + (1 - decay) * model[0].weight.detach()
        torch.testing.assert_close(ema.module[0].weight, expected)
        assert ema.updates == 3
        assert not ema.module.training
        assert not ema.module[0].weight.requires_grad

    def test_buffers_too(self) -> None:
        model = self.model().train()
        ema = Ema(model, decay=0.5)
        model(torch.randn(8, 2) + 3)
        ema.update()
        decay = 0.5 * (1 - math.exp(-1 / 2000))
        torch.testing.assert_close(ema.module[1].running_mean, (1 - decay) * model[1].running_mean)
        assert ema.module[1].num_batches_tracked.item() == 1

    def test_survives_loading(self) -> None:
        """load_state_dict copies into the tensors that update() has cached."""
        model = self.model()
        ema = Ema(model, decay=1.0)
        ema.module.load_state_dict(self.model().state_dict())
        ema.updates = 10**6
        before = ema.module[0].weight.clone()
        ema.update()
        torch.testing.assert_close(ema.module[0].weight, before)

    def test_module_on_the_same_device_is_no_copy(self) -> None:
        ema = Ema(self.model(), decay=0.9, cpu_offload=True)
        assert ema.module_on(torch.device("cpu")) is ema.module
