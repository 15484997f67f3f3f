"""The position code of FAN and EdgeNeXt: sines and cosines of a cell's place, projected."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from rtdetr_slurm.engine.models.constants import constant

FREQUENCIES = 32


class FourierCode(nn.Module):
    """A code for each cell of a map, with the names and the call of timm's
    PositionalEncodingFourier, which makes it anew each time and cannot be quantized.

    Args:
        projection: a 1x1 convolution of 2 * FREQUENCIES channels.
    """

    def __init__(self, projection: nn.Conv2d) -> None:
        super().__init__()
        self.token_projection = projection

    def forward(self, shape: tuple[int, int, int]) -> Tensor:
        """(B, H, W) to [B, C, H, W]."""
        batch, height, width = shape
        bias = self.token_projection.bias  # a quantized weight is of another type
        assert bias is not None
        code = fourier_code(int(height), int(width), bias.dtype, bias.device)
        projected: Tensor = self.token_projection(code)
        return projected.expand(batch, -1, -1, -1)


@constant
def fourier_code(height: int, width: int, dtype: torch.dtype, device: torch.device) -> Tensor:
    """[1, 2 * FREQUENCIES, height, width]: sine and cosine in turn, of the row, then of the column,
    both in 0..2π (El-Nouby et al. 2021, arXiv:2106.09681)."""
    omega = 10000.0 ** (2 * (torch.arange(FREQUENCIES) // 2).double() / FREQUENCIES)

    def code(size: int) -> Tensor:
        place = torch.arange(1, size + 1, dtype=torch.float64) / (size + 1e-6) * (2 * math.pi)
        angle = place[:, None] / omega
        return torch.stack([angle[:, 0::2].sin(), angle[:, 1::2].cos()], dim=2).flatten(1)

    rows = code(height).T[:, :, None].expand(-1, -1, width)
    columns = code(width).T[:, None, :].expand(-1, height, -1)
    return torch.cat([rows, columns])[None].to(device=device, dtype=dtype)
