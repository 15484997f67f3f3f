"""Self-attention and multi-scale deformable attention."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from rtdetr_slurm.engine.models.functions import written_out
from rtdetr_slurm.engine.models.layers import fixed_sizes, project_map
from rtdetr_slurm.engine.models.sampling import deformable_sampling, sample_levels


class SelfAttention(nn.Module):
    """Multi-head self-attention whose queries and keys carry a position code.

    Parameters are packed as in nn.MultiheadAttention: in_proj_weight holds q, k, v in this order.
    """

    def __init__(self, dim: int, num_heads: int, dropout: float = 0.0) -> None:
        super().__init__()
        self.num_heads = num_heads
        self.dropout = dropout
        self.in_proj_weight = nn.Parameter(torch.empty(3 * dim, dim))
        self.in_proj_bias = nn.Parameter(torch.zeros(3 * dim))
        self.out_proj = nn.Linear(dim, dim)
        nn.init.xavier_uniform_(self.in_proj_weight)
        nn.init.zeros_(self.out_proj.bias)

    def forward(self, x: Tensor, position: Tensor, allowed: Tensor | None = None) -> Tensor:
        """x and position [B, N, D]; allowed: bool [N, N], True where row may attend to column."""
        length, dim = fixed_sizes(x)
        parts = (2 * dim, dim)
        (qk_weight, v_weight), (qk_bias, v_bias) = (
            packed.split(parts) for packed in (self.in_proj_weight, self.in_proj_bias)
        )
        qk = F.linear(x + position, qk_weight, qk_bias)
        v = F.linear(x, v_weight, v_bias)
        width = dim // self.num_heads
        heads = (-1, length, self.num_heads, width)
        q, k = (t.reshape(heads).transpose(1, 2) for t in qk.split(dim, dim=-1))
        attended = F.scaled_dot_product_attention(
            q,
            k,
            v.reshape(heads).transpose(1, 2),
            attn_mask=allowed,
            dropout_p=self.dropout if self.training else 0.0,
            scale=width**-0.5,
        )
        out: Tensor = self.out_proj(attended.transpose(1, 2).reshape(-1, length, dim))
        return out


class DeformableAttention(nn.Module):
    """Multi-scale deformable attention (Zhu et al. 2021, arXiv:2010.04159) around boxes.

    Every query samples num_points bilinear values per head and level, at offsets from its box's
    centre measured in half box sizes, and sums them with learnt weights.
    """

    def __init__(self, dim: int, num_heads: int, num_levels: int, num_points: int) -> None:
        super().__init__()
        self.num_heads, self.num_levels, self.num_points = num_heads, num_levels, num_points
        samples = num_heads * num_levels * num_points
        self.sampling_offsets = nn.Linear(dim, samples * 2)
        self.attention_weights = nn.Linear(dim, samples)
        self.value_proj = nn.Linear(dim, dim)
        self.output_proj = nn.Linear(dim, dim)
        self._init_weights()

    def _init_weights(self) -> None:
        # The heads look in evenly spread directions, the points at 1..num_points half box sizes.
        angle = torch.arange(self.num_heads) * (2.0 * math.pi / self.num_heads)
        direction = torch.stack([angle.cos(), angle.sin()], dim=-1)
        direction = direction / direction.abs().amax(-1, keepdim=True)
        steps = torch.arange(1, self.num_points + 1)
        bias = direction[:, None, None, :] * steps[None, None, :, None]
        nn.init.zeros_(self.sampling_offsets.weight)
        with torch.no_grad():
            self.sampling_offsets.bias.copy_(bias.expand(-1, self.num_levels, -1, -1).flatten())
        nn.init.zeros_(self.attention_weights.weight)
        nn.init.zeros_(self.attention_weights.bias)
        for projection in (self.value_proj, self.output_proj):
            nn.init.xavier_uniform_(projection.weight)
            nn.init.zeros_(projection.bias)

    def forward(self, query: Tensor, boxes: Tensor, maps: list[Tensor]) -> Tensor:
        """query [B, N, D]; boxes [B, N, 4] cxcywh in 0..1; maps: [B, D, H_l, W_l] per level."""
        length, dim = fixed_sizes(query)
        samples = (-1, length, self.num_heads, self.num_levels, self.num_points)
        offsets = self.sampling_offsets(query).reshape(*samples, 2)
        per_head = self.num_levels * self.num_points
        weights = self.attention_weights(query).reshape(*samples[:3], per_head).softmax(-1)
        centre, size = boxes.reshape(-1, length, 1, 1, 1, 4).split(2, dim=-1)
        points = centre + offsets * (size * (0.5 / self.num_points))
        # grid_sample wants -1..1 and [B * heads, N, P, 2] per level.
        grids = (2 * points - 1).permute(3, 0, 2, 1, 4, 5)
        grids = grids.reshape(self.num_levels, -1, length, self.num_points, 2)
        weights = weights.transpose(1, 2).reshape(-1, 1, length, per_head)
        if written_out() and type(self.value_proj) is nn.Linear:
            mixed = deformable_sampling(self.value_proj, grids, weights, maps)
        else:
            values = [self._value(feature) for feature in maps]
            mixed = (sample_levels(values, grids) * weights).sum(-1)
        out: Tensor = self.output_proj(mixed.reshape(-1, dim, length).transpose(1, 2))
        return out

    def _value(self, feature: Tensor) -> Tensor:
        """[B, D, H, W] to the values that the heads sample, [B * heads, D / heads, H, W]."""
        value = project_map(feature, self.value_proj)
        dim, height, width = fixed_sizes(value)
        return value.reshape(-1, dim // self.num_heads, height, width)
