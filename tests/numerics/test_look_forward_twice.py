"""The extra gradient path of the box refinement, derived by hand; transformers does not have it."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from rtdetr_slurm.engine.models.decoder import TransformerDecoder

LAYERS = 4


class Unchanged(nn.Module):
    """Stands for a decoder layer: the content does not depend on boxes or maps."""

    def forward(self, x: Tensor, *_: object) -> Tensor:
        return x


class Shift(nn.Module):
    """Stands for a box head: predicts the same shift in logit space for every query."""

    def __init__(self, shift: float) -> None:
        super().__init__()
        self.shift = nn.Parameter(torch.tensor(shift))

    def forward(self, x: Tensor) -> Tensor:
        return self.shift.expand(*x.shape[:-1], 4)


def run(training: bool) -> tuple[list[Shift], Tensor]:
    decoder = TransformerDecoder(dim=16, num_layers=LAYERS, num_levels=1, eval_idx=-1)
    decoder.layers = nn.ModuleList(Unchanged() for _ in range(LAYERS))
    heads = [Shift(0.1 * (i + 1)) for i in range(LAYERS)]
    scores = nn.ModuleList(nn.Linear(16, 2) for _ in range(LAYERS))
    start = torch.full((1, 1, 4), 0.3)
    _, boxes = decoder.train(training)(
        torch.zeros(1, 1, 16), start, [], None, Unchanged(), scores, nn.ModuleList(heads)
    )
    return heads, boxes


@pytest.mark.parametrize("layer", range(LAYERS))
def test_a_layers_loss_reaches_its_own_head_and_the_one_before(layer: int) -> None:
    """Box i is sigmoid(0.3 + d_0 + … + d_i). Its derivative by a shift that it still depends on is
    b(1 - b); the chain is cut two heads back."""
    heads, boxes = run(training=True)
    expected = torch.sigmoid(torch.tensor(0.3 + sum(0.1 * (i + 1) for i in range(layer + 1))))
    torch.testing.assert_close(boxes[layer], expected.expand(1, 1, 4))

    boxes[layer].sum().backward()
    slope = 4 * expected * (1 - expected)
    for index, head in enumerate(heads):
        if index in (layer, layer - 1):
            assert head.shift.grad is not None
            torch.testing.assert_close(head.shift.grad, slope)
        else:
            assert head.shift.grad is None or head.shift.grad == 0


def test_eval_mode_gives_the_same_boxes() -> None:
    _, training = run(training=True)
    _, evaluation = run(training=False)
    torch.testing.assert_close(evaluation[0], training[-1])
