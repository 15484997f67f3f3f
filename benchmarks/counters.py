"""What a training step keeps, calls and waits for; used by engine.py and by the tests."""

from __future__ import annotations

import warnings
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode
from torch.profiler import ProfilerActivity, profile
from torch.utils._python_dispatch import TorchDispatchMode

HOST_CALLS = ("cpu", "tolist", "item")
"""Methods with which Python asks for values that a device has. On the CPU they copy nothing, so
that no operator tells of them."""
HOST_OPERATORS = ("_local_scalar_dense", "nonzero", "masked_select", "is_nonzero", "equal")
"""Operators whose result, or its size, the host waits for."""

PRODUCTS = (
    *("mkldnn_convolution", "cudnn_convolution", "convolution_backward"),
    *("mm", "addmm", "addmm_", "bmm", "baddbmm", "baddbmm_"),
)
"""Operators whose own time is that of multiplications."""


@contextmanager
def kept_bytes(model: nn.Module) -> Iterator[dict[int, int]]:
    """Collect the bytes of the storages that autograd keeps for the backward pass, by address;
    parameters and buffers are no part of it."""
    own = {tensor.untyped_storage().data_ptr() for tensor in model.state_dict().values()}
    kept: dict[int, int] = {}
    held: list[Tensor] = []  # an address must not be given to another tensor meanwhile

    def pack(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in own:
            kept[storage.data_ptr()] = storage.nbytes()
            held.append(tensor)
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        yield kept


class Operators(TorchDispatchMode):
    """Counts the operators that autograd sends on, by name; views are counted apart."""

    def __init__(self) -> None:
        super().__init__()
        self.computing: Counter[str] = Counter()
        self.views: Counter[str] = Counter()

    def __torch_dispatch__(
        self,
        func: Any,
        types: Any,
        args: Sequence[Any] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        counter = self.views if func.is_view else self.computing
        name = func.overloadpacket.__name__
        counter[name] += 1
        if name.startswith("index") and _by_mask(args):
            counter["nonzero"] += 1
        return func(*args, **(kwargs or {}))


def _by_mask(args: Sequence[Any]) -> bool:
    """Whether arguments of an indexing have a mask, whose true places are to be counted first."""
    indices = args[1] if len(args) > 1 and isinstance(args[1], list | tuple) else ()
    return any(isinstance(one, Tensor) and one.dtype == torch.bool for one in indices)


class _HostCalls(TorchFunctionMode):
    def __init__(self) -> None:
        super().__init__()
        self.calls: list[str] = []

    def __torch_function__(
        self,
        func: Any,
        types: Any,
        args: Sequence[Any] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        name = getattr(func, "__name__", "")
        if name in HOST_CALLS:
            self.calls.append(name)
        return func(*args, **(kwargs or {}))


def host_reads(step: Callable[[], object]) -> list[str]:
    """What in a step makes the host wait for values of the device: on CUDA the warnings of
    torch.cuda.set_sync_debug_mode, on the CPU the calls that would."""
    if torch.cuda.is_available():
        torch.cuda.set_sync_debug_mode("warn")
        try:
            with warnings.catch_warnings(record=True) as caught:
                warnings.simplefilter("always")
                step()
        finally:
            torch.cuda.set_sync_debug_mode("default")
        return [str(one.message) for one in caught if "synchronizing" in str(one.message)]
    with _HostCalls() as host, Operators() as operators:
        step()
    found = {name: operators.computing[name] for name in HOST_OPERATORS}
    asked = host.calls.count("item")  # each is a _local_scalar_dense, too
    found["_local_scalar_dense"] = max(found["_local_scalar_dense"] - asked, 0)
    return host.calls + [name for name, count in found.items() for _ in range(count)]


def product_ms(step: Callable[[], object]) -> float:
    """Milliseconds that a step spends in convolutions and matrix products, which no arrangement of
    the rest can spare; of the device's own time where there is a GPU."""
    with_gpu = torch.cuda.is_available()
    devices = [ProfilerActivity.CPU, *([ProfilerActivity.CUDA] if with_gpu else [])]
    with profile(activities=devices) as found:
        step()
    spent = 0.0
    for one in found.key_averages():
        if one.key.removeprefix("aten::") in PRODUCTS:
            spent += one.self_device_time_total if with_gpu else one.self_cpu_time_total
    return spent / 1e3


def profiled_calls(step: Callable[[], object]) -> int:
    """ATen calls of a step as torch.profiler has them: those that others make are counted, too."""
    with profile(activities=[ProfilerActivity.CPU]) as found:
        step()
    return sum(one.count for one in found.key_averages() if one.key.startswith("aten::"))
