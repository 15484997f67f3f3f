"""Backward passes that are written out, against autograd's, in float64."""

from __future__ import annotations

import copy
from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
from model_support import images, small_model, targets
from torch import Tensor, nn

from benchmarks.counters import kept_bytes
from rtdetr_slurm.engine.models import attention, functions, hybrid_encoder, layers, resnet_vd
from rtdetr_slurm.engine.models.attention import DeformableAttention
from rtdetr_slurm.engine.models.functions import max_pool
from rtdetr_slurm.engine.models.hybrid_encoder import RepVggBlock
from rtdetr_slurm.engine.models.layers import ConvNorm, FrozenBatchNorm2d, freeze_batch_norm
from rtdetr_slurm.engine.models.resnet_vd import Bottleneck

LAYOUTS = (torch.contiguous_format, torch.channels_last)


@pytest.fixture
def plainly(monkeypatch: pytest.MonkeyPatch) -> Callable[[], None]:
    def use_plain_modules() -> None:
        for module in (attention, functions, hybrid_encoder, layers, resnet_vd):
            if hasattr(module, "written_out"):
                monkeypatch.setattr(module, "written_out", lambda: False)

    return use_plain_modules


def values(*shape: int) -> Tensor:
    generator = torch.Generator().manual_seed(sum(shape))
    return torch.randn(shape, generator=generator, dtype=torch.float64)


def compare(
    module: nn.Module,
    inputs: list[Tensor],
    call: Callable[[nn.Module], Tensor],
    plainly: Callable[[], None],
) -> None:
    """Outputs, gradients of inputs and parameters, and buffers: written out and by autograd."""
    results = []
    for prepare in (lambda: None, plainly):
        prepare()
        twin = copy.deepcopy(module)
        for one in inputs:
            one.grad = None
        out = call(twin)
        out.sin().sum().backward()
        grads = [one.grad for one in (*inputs, *twin.parameters())]
        results.append(([out.detach(), *grads], dict(twin.named_buffers())))
    torch.testing.assert_close(*results, rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("layout", LAYOUTS, ids=str)
@pytest.mark.parametrize(
    "kind", ["silu", "silu, 1x1", "frozen", "frozen, stride 2", "repvgg", "bottleneck"]
)
def test_blocks(kind: str, layout: torch.memory_format, plainly: Callable[[], None]) -> None:
    torch.manual_seed(0)
    block: nn.Module = {
        "silu": lambda: ConvNorm(4, 6, 3, act=nn.SiLU()),
        "silu, 1x1": lambda: ConvNorm(4, 6, 1, act=nn.SiLU()),
        "frozen": lambda: ConvNorm(4, 6, 3, act=nn.ReLU(inplace=True)),
        "frozen, stride 2": lambda: ConvNorm(4, 6, 3, 2, act=nn.SiLU()),
        "repvgg": lambda: RepVggBlock(4, "silu"),
        # With a pooled shortcut.
        "bottleneck": lambda: Bottleneck(4, 3, 2, first=True),
    }[kind]()
    block.double()
    for module in block.modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.normal_(module.weight, 1.0, 0.2)
            nn.init.normal_(module.running_mean)
    if "frozen" in kind:
        assert isinstance(block, ConvNorm)
        block.norm = FrozenBatchNorm2d.from_batch_norm(block.norm)  # type: ignore[arg-type]
    elif kind == "bottleneck":
        freeze_batch_norm(block)
    x = values(2, 4, 6, 8).to(memory_format=layout).requires_grad_()
    compare(block, [x], lambda twin: twin(x), plainly)


def test_what_costs_little_is_not_kept() -> None:
    """Neither what a bottleneck's first convolution puts out, nor what its shortcut averages, nor
    what a RepVGG block's narrow branch puts out, nor other 1x1 convolutions that are normalised;
    small constants are left out of account."""
    bottleneck, repvgg = Bottleneck(16, 4, 2, first=True), RepVggBlock(16, "silu")
    single, narrowing = (ConvNorm(16, width, 1, act=nn.SiLU()) for width in (8, 4))
    freeze_batch_norm(bottleneck)
    x = torch.randn(2, 16, 8, 8).requires_grad_()
    assert x.nbytes == 8192
    for block, call, kept in (
        (bottleneck, bottleneck.short, x.nbytes),
        # A quarter of the channels and of the cells, before the last convolution.
        (bottleneck, lambda x: bottleneck.branch2c(bottleneck._narrow(x)), x.nbytes * 17 // 16),
        (repvgg, repvgg, 2 * x.nbytes),  # and the wide branch's
        (single, single, x.nbytes),
        (narrowing, narrowing, x.nbytes * 5 // 4),
    ):
        with kept_bytes(block) as found:
            call(x)
        large = [size for size in found.values() if size > 256]
        assert sum(large) == kept


def test_what_is_kept_of_a_frozen_norm_follows_its_buffers() -> None:
    """Loaded, written to, moved to another type, copied."""
    block = ConvNorm(2, 2, 1)
    block.norm = norm = FrozenBatchNorm2d(2)
    x, state = torch.ones(1, 2, 1, 1), norm.state_dict()
    seen = [block(x)]

    def change(value: float) -> None:
        norm.load_state_dict(state | {"weight": torch.tensor([value, value])})

    for step in (lambda: change(3.0), lambda: norm.bias.add_(1.0), block.double):
        step()
        now = block(x.to(norm.bias.dtype))
        expected = block.norm(block.conv(x.to(norm.bias.dtype)))
        torch.testing.assert_close(now, expected)
        assert not torch.equal(now, seen[-1])
        seen.append(now)
    twin = copy.deepcopy(block)
    assert isinstance(twin.norm, FrozenBatchNorm2d)
    twin.norm.bias.zero_()
    assert not torch.equal(twin(x.double()), seen[-1])
    torch.testing.assert_close(block(x.double()), seen[-1])
    kept = norm.kept_scale_and_shift()
    assert norm.kept_scale_and_shift() is kept, "made anew"


@pytest.mark.parametrize("layout", LAYOUTS, ids=str)
def test_max_pool(layout: torch.memory_format) -> None:
    x = values(2, 3, 8, 6).to(memory_format=layout).requires_grad_()
    found, expected = max_pool(x), F.max_pool2d(x, 3, 2, 1)
    assert torch.equal(found, expected)
    gradients = [torch.autograd.grad(one.sin().sum(), x)[0] for one in (found, expected)]
    assert torch.equal(*gradients)


@pytest.mark.parametrize("layout", LAYOUTS, ids=str)
def test_deformable_attention(layout: torch.memory_format, plainly: Callable[[], None]) -> None:
    torch.manual_seed(0)
    attention = DeformableAttention(16, 4, 2, 3).double()
    for parameter in attention.parameters():
        nn.init.normal_(parameter, std=0.3)
    query = values(2, 5, 16).requires_grad_()
    boxes = values(2, 5, 4).sigmoid().detach().requires_grad_()
    maps = [values(2, 16, *size).to(memory_format=layout) for size in ((6, 8), (3, 4))]
    maps = [one.requires_grad_() for one in maps]
    compare(attention, [query, boxes, *maps], lambda twin: twin(query, boxes, maps), plainly)


@pytest.mark.parametrize(("freeze_norm", "share"), [(False, 0.9), (True, 0.5)])
def test_less_is_kept_for_the_backward_pass(
    freeze_norm: bool, share: float, plainly: Callable[[], None]
) -> None:
    model = small_model(freeze_norm=freeze_norm).train()
    with kept_bytes(model) as written:
        model(images(), targets(3, 1))
    plainly()
    with kept_bytes(model) as plain:
        model(images(), targets(3, 1))
    assert sum(written.values()) < share * sum(plain.values())
