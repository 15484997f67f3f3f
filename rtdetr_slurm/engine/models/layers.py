"""Blocks that the backbone, the encoder and the decoder share."""

from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from rtdetr_slurm.engine.models.functions import (
    ScaledConv,
    norm_silu,
    normalizes,
    scaled_convs,
    written_out,
)

ACTIVATIONS: dict[str, Callable[[], nn.Module]] = {
    "relu": nn.ReLU,
    "gelu": nn.GELU,
    "silu": nn.SiLU,
    "leaky_relu": nn.LeakyReLU,
}
"""Names allowed in `model.act` and `model.enc_act`. None works in place: in training, autograd
would have to copy the input of an in-place SiLU."""


def build_activation(name: str) -> nn.Module:
    """Return a new activation; `name` is a key of ACTIVATIONS."""
    return ACTIVATIONS[name]()


class FrozenBatchNorm2d(nn.Module):
    """Batch norm whose statistics and affine parameters are constants (buffers).

    The names are those of nn.BatchNorm2d, without num_batches_tracked.
    """

    weight: Tensor
    bias: Tensor
    running_mean: Tensor
    running_var: Tensor

    def __init__(self, channels: int, eps: float = 1e-5) -> None:
        super().__init__()
        self.eps = eps
        self.register_buffer("weight", torch.ones(channels))
        self.register_buffer("bias", torch.zeros(channels))
        self.register_buffer("running_mean", torch.zeros(channels))
        self.register_buffer("running_var", torch.ones(channels))
        self._made: tuple[list[tuple[int, int]], tuple[Tensor, Tensor]] | None = None

    @classmethod
    def from_batch_norm(cls, norm: _BatchNorm) -> FrozenBatchNorm2d:
        assert norm.running_mean is not None
        frozen = cls(norm.num_features, norm.eps).to(norm.running_mean)
        frozen.load_state_dict(
            {k: v for k, v in norm.state_dict().items() if k != "num_batches_tracked"}
        )
        return frozen

    def scale_and_shift(self) -> tuple[Tensor, Tensor]:
        """y = x * scale + shift, each [channels]."""
        scale = self.weight * (self.running_var + self.eps).rsqrt()
        return scale, torch.addcmul(self.bias, self.running_mean, scale, value=-1)

    def kept_scale_and_shift(self) -> tuple[Tensor, Tensor]:
        """As `scale_and_shift`; made anew only where a buffer is another, or was written to."""
        buffers = (self.weight, self.bias, self.running_mean, self.running_var)
        state = [(one.data_ptr(), one._version) for one in buffers]
        if self._made is None or self._made[0] != state:
            self._made = state, self.scale_and_shift()
        return self._made[1]

    def forward(self, x: Tensor) -> Tensor:
        return F.batch_norm(
            x, self.running_mean, self.running_var, self.weight, self.bias, eps=self.eps
        )


def freeze_batch_norm(module: nn.Module) -> None:
    """Replace every batch norm below `module` by its frozen form, in place."""
    for name, child in module.named_children():
        if isinstance(child, _BatchNorm):
            setattr(module, name, FrozenBatchNorm2d.from_batch_norm(child))
        else:
            freeze_batch_norm(child)


class ConvNorm(nn.Module):
    """Convolution without bias, batch norm, activation; [B, C, H, W] to [B, C', H/s, W/s].

    Attributes:
        in_parts: call them one by one, as someone looks at what one of them puts out; else they
            may be computed as one.
    """

    in_parts = False

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: int,
        stride: int = 1,
        act: nn.Module | None = None,
    ) -> None:
        super().__init__()
        padding = (kernel_size - 1) // 2
        self.conv = nn.Conv2d(in_channels, out_channels, kernel_size, stride, padding, bias=False)
        self.norm: nn.Module = nn.BatchNorm2d(out_channels)
        self.act = nn.Identity() if act is None else act

    def forward(self, x: Tensor) -> Tensor:
        if self.in_parts:
            x = self.norm(self.conv(x))
        elif isinstance(self.norm, FrozenBatchNorm2d):
            # A constant affine map: scaling the kernel is far cheaper than scaling the output.
            x = self._frozen(x, self.norm)
        elif isinstance(self.act, nn.SiLU) and normalizes(self.norm) and written_out():
            return norm_silu(x, (self.conv, self.norm))
        else:
            x = self.norm(self.conv(x))
        out: Tensor = self.act(x)
        return out

    def scaled(self) -> ScaledConv | None:
        """Convolution and norm in one, for a backward pass that is written out."""
        if self.in_parts or not isinstance(self.norm, FrozenBatchNorm2d) or not written_out():
            return None
        return self.conv, *self.norm.kept_scale_and_shift()

    def _frozen(self, x: Tensor, norm: FrozenBatchNorm2d) -> Tensor:
        scaled = self.scaled()
        if scaled is not None:
            return scaled_convs(x, scaled)
        scale, shift = norm.scale_and_shift()
        weight = self.conv.weight * scale[:, None, None, None]
        return F.conv2d(x, weight, shift, self.conv.stride, self.conv.padding)


class MLP(nn.Module):
    """Linear layers with ReLU between them; [..., in_dim] to [..., out_dim]."""

    def __init__(self, in_dim: int, hidden_dim: int, out_dim: int, num_layers: int) -> None:
        super().__init__()
        dims = [in_dim, *[hidden_dim] * (num_layers - 1), out_dim]
        self.layers = nn.ModuleList(
            nn.Linear(width, following) for width, following in pairwise(dims)
        )

    def forward(self, x: Tensor) -> Tensor:
        *hidden, last = self.layers
        for layer in hidden:
            x = F.relu(layer(x))
        out: Tensor = last(x)
        return out


def project_map(x: Tensor, linear: nn.Module) -> Tensor:
    """Apply a linear layer to the channels of a map, [B, C, H, W] to [B, C', H, W].

    The 1x1 convolution keeps the map's memory layout, where tokens would have to be transposed.
    """
    if type(linear) is not nn.Linear:  # a quantized one does more than to multiply
        projected: Tensor = linear(x.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)
        return projected
    return F.conv2d(x, linear.weight[:, :, None, None], linear.bias)


def fixed_sizes(x: Tensor) -> tuple[int, ...]:
    """The sizes of all dimensions but the batch, as plain numbers: an export that leaves the batch
    open makes constants of them, and of all that follows from them."""
    return tuple(int(size) for size in x.shape[1:])


def inverse_sigmoid(x: Tensor, eps: float = 1e-5) -> Tensor:
    """Logit of x in 0..1, kept finite at the ends by `eps`."""
    x = x.clamp(0, 1)
    return torch.log(x.clamp(min=eps) / (1 - x).clamp(min=eps))
