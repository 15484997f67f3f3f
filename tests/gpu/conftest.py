"""What runs on a GPU; without one these tests are skipped with the reason, and `make test` leaves
them out."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

HERE = Path(__file__).parent


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """The hook sees the items of the whole session."""
    if torch.cuda.is_available():
        return
    reason = "no GPU: torch sees no CUDA device"
    for item in items:
        if HERE in item.path.parents:
            item.add_marker(pytest.mark.skip(reason=reason))
