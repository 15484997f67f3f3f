"""Writing the training state."""

from __future__ import annotations

import tracemalloc
from pathlib import Path

import pytest
import torch

from rtdetr_slurm.engine.training.checkpoint import load_checkpoint, save_checkpoint


@pytest.mark.parametrize("key", [None, "hunter2"])
def test_a_checkpoint_is_not_held_in_memory_once_more(tmp_path: Path, key: str | None) -> None:
    """The node has memory for the training, its loading processes, and not for a copy of it all."""
    state = {f"part{n}": torch.zeros(1 << 18) for n in range(32)}  # 32 MiB
    path = tmp_path / "model_epoch_000.pth"
    tracemalloc.start()
    save_checkpoint(path, {"model": state, "optimizer": {}}, key)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert path.stat().st_size > 32 << 20
    assert peak < 8 << 20
    assert load_checkpoint(path, key)["model"].keys() == state.keys()
