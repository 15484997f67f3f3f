"""FAN against its published sizes, and its authors' computation written out."""

from __future__ import annotations

import math
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from layout_support import State
from model_support import small_model
from torch import Tensor, nn

from rtdetr_slurm.engine.models.fan import FAN, SIZES
from rtdetr_slurm.engine.models.keymap import load_weights

PUBLISHED_MILLIONS = {"tiny": 7.4, "small": 26.3, "base": 50.4, "large": 76.8}
"""Of the classifiers, in the authors' list."""


@pytest.mark.parametrize("size", SIZES)
def test_parameter_counts_are_the_published_ones(size: str) -> None:
    with torch.device("meta"):
        own = sum(
            parameter.numel()
            for name, parameter in FAN(size, [3]).named_parameters()
            if not name.startswith(("levels.", "learnable_downsample."))
        )
        served = sum(tensor.numel() for tensor in class_token_parts(SIZES[size].width).values())
    assert (own + served) / 1e6 == pytest.approx(PUBLISHED_MILLIONS[size], rel=0.011)


def class_token_parts(width: int) -> State:
    """What the authors' classifiers have beside the backbone: parts of the class token."""
    shapes: dict[str, tuple[int, ...]] = {"cls_token": (1, 1, width)}
    for block in ("cls_attn_blocks.0", "cls_attn_blocks.1"):
        shapes[f"{block}.gamma2"] = (width,)
        for layer, sides in {
            **dict.fromkeys(("attn.q", "attn.k", "attn.v", "attn.proj"), (width, width)),
            "mlp.fc1": (4 * width, width),
            "mlp.fc2": (width, 4 * width),
        }.items():
            shapes |= {f"{block}.{layer}.weight": sides, f"{block}.{layer}.bias": sides[:1]}
    shapes |= {"norm.weight": (width,), "norm.bias": (width,)}
    shapes |= {"head.weight": (1000, width), "head.bias": (1000,)}
    return {name: torch.randn(shape) * 0.02 for name, shape in shapes.items()}


@torch.no_grad()
def test_the_computation_of_its_authors(tmp_path: Path) -> None:
    """With the class token beside the cells, which it does not change."""
    torch.manual_seed(1)
    size = SIZES["tiny"]
    source = FAN("tiny", [1, 2, 3]).double().eval()
    for name, parameter in source.named_parameters():
        if "gamma" in name or "temperature" in name:
            parameter.normal_(1, 0.3)
    for name, buffer in source.named_buffers():
        if "running" in name:
            buffer.uniform_(0.5, 1.5)
    state = {name: value for name, value in source.state_dict().items() if "levels" not in name}
    state |= {name: value.double() for name, value in class_token_parts(size.width).items()}
    torch.save({"state_dict_ema": None, "state_dict": state}, tmp_path / "fan.pth")

    model = small_model(seed=2, backbone="fan_tiny")
    report = load_weights(model, tmp_path / "fan.pth", part="backbone")
    skipped = {line.split(":")[0].removeprefix("backbone.") for line in report.skipped}
    levels = {f"levels.{stage}.{kind}" for stage in (1, 2, 3) for kind in ("weight", "bias")}
    assert skipped == {*class_token_parts(size.width), *levels}

    images = torch.rand(2, 3, 64, 96, dtype=torch.float64)
    backbone = model.backbone.double().eval()
    for found, expected in zip(backbone(images), reference(images, backbone, state), strict=True):
        normed = F.layer_norm(expected.permute(0, 2, 3, 1), expected.shape[1:2])
        # The file's weights went through the model's float32.
        torch.testing.assert_close(found, normed.permute(0, 3, 1, 2), rtol=1e-4, atol=1e-4)


def reference(images: Tensor, backbone: FAN, state: State) -> list[Tensor]:
    """The maps of stride 8, 16 and 32."""

    def linear(x: Tensor, name: str) -> Tensor:
        return F.linear(x, state[f"{name}.weight"], state[f"{name}.bias"])

    def norm(x: Tensor, name: str, eps: float = 1e-6) -> Tensor:
        return F.layer_norm(x, x.shape[-1:], state[f"{name}.weight"], state[f"{name}.bias"], eps)

    def heads(x: Tensor) -> Tensor:
        return x.unflatten(-1, (8, -1)).transpose(1, 2)  # [B, h, N, d]

    def hidden_map(x: Tensor, name: str, height: int, width: int) -> Tensor:
        y = x.transpose(1, 2).unflatten(2, (height, width))
        for number in (1, 2):
            conv = f"{name}.conv{number}"
            y = F.conv2d(
                y, state[f"{conv}.weight"], state[f"{conv}.bias"], padding=1, groups=y.shape[1]
            )
            if number == 1:
                mean, var, weight, bias = (
                    state[f"{name}.bn.{part}"]
                    for part in ("running_mean", "running_var", "weight", "bias")
                )
                y = F.batch_norm(F.gelu(y), mean, var, weight, bias)
        return y.flatten(2).transpose(1, 2)

    stem = backbone.patch_embed.backbone  # timm's stages, compared elsewhere
    stride_8 = nn.Sequential(stem.stem, *stem.stages)(images)
    x = F.conv2d(
        stride_8,
        state["patch_embed.proj.weight"],
        state["patch_embed.proj.bias"],
        stride=2,
    )
    batch, _, height, width = x.shape
    x = (x + position(height, width, state)).flatten(2).transpose(1, 2)
    for index in range(8):
        block = f"blocks.{index}"
        y = norm(x, f"{block}.norm1")
        keys, values = linear(y, f"{block}.attn.kv").chunk(2, dim=-1)
        query = heads(linear(y, f"{block}.attn.q"))
        weights = query @ heads(keys).transpose(2, 3) / math.sqrt(query.shape[-1])
        y = (weights.softmax(-1) @ heads(values)).transpose(1, 2).flatten(2)
        x = x + state[f"{block}.gamma1"] * linear(y, f"{block}.attn.proj")

        y, mlp = norm(x, f"{block}.norm2"), f"{block}.mlp"
        query = heads(linear(y, f"{mlp}.q")).softmax(2).transpose(2, 3)
        keys = heads(y).softmax(2).mean(dim=-1, keepdim=True)
        gate = (query @ keys).sigmoid() * state[f"{mlp}.temperature"]  # [B, h, d, 1]
        hidden = linear(y, f"{mlp}.mlp_v.fc1")
        moved = hidden_map(hidden, f"{mlp}.mlp_v.dwconv", height, width)
        hidden = hidden + state[f"{mlp}.mlp_v.gamma"] * moved
        values = norm(linear(hidden, f"{mlp}.mlp_v.fc2"), f"{mlp}.norm_v", 1e-5)
        y = (gate * heads(values).transpose(2, 3)).permute(0, 3, 1, 2).flatten(2)
        x = x + state[f"{block}.gamma2"] * y
    stride_16 = x.transpose(1, 2).unflatten(2, (height, width))

    x = torch.cat([state["cls_token"].expand(batch, -1, -1), x], dim=1)
    for index in range(2):
        block = f"cls_attn_blocks.{index}"
        y = norm(x, f"{block}.norm1")
        query = heads(linear(y[:, :1], f"{block}.attn.q"))
        keys, values = (heads(linear(y, f"{block}.attn.{one}")) for one in "kv")
        token = (query @ keys.transpose(2, 3) / math.sqrt(query.shape[-1])).softmax(-1) @ values
        token = linear(token.transpose(1, 2).flatten(2), f"{block}.attn.proj")
        x = x + state[f"{block}.gamma1"] * torch.cat([token, y[:, 1:]], dim=1)
        x = norm(x, f"{block}.norm2")
        token = linear(F.gelu(linear(x[:, :1], f"{block}.mlp.fc1")), f"{block}.mlp.fc2")
        x = x + torch.cat([state[f"{block}.gamma2"] * token, x[:, 1:]], dim=1)
    cells = x[:, 1:].transpose(1, 2).unflatten(2, (height, width))
    weight, bias = (state[f"learnable_downsample.{part}"] for part in ("weight", "bias"))
    return [stride_8, stride_16, F.conv2d(cells, weight, bias, stride=2, padding=1)]


def position(height: int, width: int, state: State) -> Tensor:
    omega = 10000 ** (torch.arange(32) // 2 * 2 / 32).double()
    code = torch.empty(1, 64, height, width, dtype=torch.float64)
    for row in range(height):
        for column in range(width):
            for start, place in ((0, (row + 1) / height), (32, (column + 1) / width)):
                angle = place * 2 * math.pi / omega
                part = code[0, start : start + 32, row, column]
                part[0::2], part[1::2] = angle[0::2].sin(), angle[1::2].cos()
    name = "pos_embed.token_projection"
    return F.conv2d(code, state[f"{name}.weight"], state[f"{name}.bias"])
