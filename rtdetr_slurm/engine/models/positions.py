"""Position code and anchors of a pyramid of maps: functions of the sizes alone.

They are kept per size, dtype and device and never part of a state dict, so that one checkpoint
serves every input size.
"""

from __future__ import annotations

import torch
from torch import Tensor

from rtdetr_slurm.engine.models.constants import constant

Shapes = tuple[tuple[int, int], ...]
"""(height, width) of each level."""

ANCHOR_SIZE = 0.05
"""Width and height of level 0's anchors in units of the image; doubled from level to level."""
ANCHOR_MARGIN = 0.01
"""An anchor is valid when all its four numbers keep this distance from 0 and 1."""
OUTSIDE = 1e4
"""Logit of an invalid anchor: its sigmoid is exactly 1 in every floating type, and it is finite in
float16 (the published code has infinity here, which ONNX Runtime and float16 turn into NaN)."""


@constant
def position_code(
    height: int, width: int, dim: int, temperature: float, dtype: torch.dtype, device: torch.device
) -> Tensor:
    """Sine-cosine code of a map's cells in row-major order.

    The halves of the channels code the row and the column: [sin y, cos y, sin x, cos x] with dim/4
    frequencies each, temperature^(-4i/dim). On square maps this is what the published weights were
    trained with; on others the published code mixes up rows and columns, this does not.

    Returns:
        [1, height * width, dim].
    """
    frequencies = torch.arange(dim // 4, dtype=torch.float64) / (dim // 4)
    omega = 1.0 / temperature**frequencies
    y = torch.arange(height, dtype=torch.float64).outer(omega)
    x = torch.arange(width, dtype=torch.float64).outer(omega)
    rows = torch.cat([y.sin(), y.cos()], dim=1)[:, None, :].expand(height, width, dim // 2)
    columns = torch.cat([x.sin(), x.cos()], dim=1)[None, :, :].expand(height, width, dim // 2)
    code = torch.cat([rows, columns], dim=2).reshape(1, height * width, dim)
    return code.to(device=device, dtype=dtype)


@constant
def anchors(shapes: Shapes, dtype: torch.dtype, device: torch.device) -> tuple[Tensor, Tensor]:
    """One anchor box per cell of every level.

    Returns:
        logits: [1, L, 4], inverse sigmoid of the cxcywh boxes; OUTSIDE where invalid.
        valid: bool [1, L, 1].
    """
    levels = []
    for level, (height, width) in enumerate(shapes):
        y = (torch.arange(height, dtype=torch.float64) + 0.5) / height
        x = (torch.arange(width, dtype=torch.float64) + 0.5) / width
        grid_y, grid_x = torch.meshgrid(y, x, indexing="ij")
        size = torch.full_like(grid_x, ANCHOR_SIZE * 2.0**level)
        levels.append(torch.stack([grid_x, grid_y, size, size], dim=-1).reshape(-1, 4))
    boxes = torch.cat(levels)[None]
    valid = ((boxes > ANCHOR_MARGIN) & (boxes < 1 - ANCHOR_MARGIN)).all(-1, keepdim=True)
    logits = torch.where(valid, torch.logit(boxes), torch.full_like(boxes, OUTSIDE))
    return logits.to(device=device, dtype=dtype), valid.to(device)
