"""Tensors that are functions of sizes alone, made once for each."""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache, wraps
from typing import ParamSpec, TypeVar

import torch

P = ParamSpec("P")
T = TypeVar("T")

CONSTANTS: list[Callable[..., object]] = []
"""Functions whose results a compiler may take for constants; it cannot see so much through their
caches, and would make the tensors anew in every step."""


def constant(function: Callable[P, T]) -> Callable[P, T]:
    """`function`, which keeps what it has made per arguments, for training as for inference."""
    # What is made in inference mode could not be used in training later.
    made = lru_cache(maxsize=64)(torch.inference_mode(False)(torch.no_grad()(function)))

    @wraps(function)
    def kept(*args: P.args, **kwargs: P.kwargs) -> T:
        return made(*args, **kwargs)  # type: ignore[arg-type]  # sizes, types, devices: hashable

    CONSTANTS.append(kept)
    return kept
