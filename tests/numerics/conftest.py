from __future__ import annotations

from collections.abc import Iterator

import pytest
import torch


@pytest.fixture(autouse=True)
def float64() -> Iterator[None]:
    """Tensors that either side makes without naming a type are float64 too."""
    torch.set_num_threads(1)  # another process does as much beside this one
    torch.set_default_dtype(torch.float64)
    yield
    torch.set_default_dtype(torch.float32)
