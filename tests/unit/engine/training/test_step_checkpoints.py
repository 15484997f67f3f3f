"""Checkpoints by optimizer steps, and another optimizer."""

from __future__ import annotations

import pytest
import torch
from engine_support import Workspace, stopping_at, workspace  # noqa: F401

from rtdetr_slurm.engine.actions.train import train
from rtdetr_slurm.engine.process.stop import Interrupted
from rtdetr_slurm.engine.training.checkpoint import load_checkpoint
from rtdetr_slurm.errors import RequestError
from rtdetr_slurm.runs.checkpoints import in_the_way, list_checkpoints, resume_point
from rtdetr_slurm.runs.choice import checkpoint_of

# ruff: noqa: F811  (pytest fixtures are arguments of the name they are imported by)

EVERY_TWO = (
    "train.checkpoint_interval=2",
    "train.checkpoint_interval_unit=step",
    "train.optim.optimizer=SGD",
    "train.optim.momentum=0.8",
)


def test_go_on_from_a_step(workspace: Workspace, monkeypatch: pytest.MonkeyPatch) -> None:
    """Steps 2 and 4 of six, and the sixth, which is an epoch's end; with SGD, whose momentum is
    there to go on with, and is refused to another optimizer."""
    train(workspace.session(*EVERY_TWO))
    folder = workspace.results / "train"
    assert {path.name for path in folder.glob("*.pth")} == {
        "model_epoch_000_step_000002.pth",
        "model_epoch_001_step_000001.pth",
        "model_epoch_001.pth",
    }
    assert [one.epoch for one in list_checkpoints(folder)] == [1]
    assert checkpoint_of(folder, "best").path.name == "model_epoch_001.pth"
    whole = load_checkpoint(folder / "model_epoch_001.pth")
    assert [*next(iter(whole["optimizer"]["state"].values()))] == ["momentum_buffer"]
    assert {one["momentum"] for one in whole["optimizer"]["param_groups"]} == {0.8}

    start = folder / "model_epoch_000_step_000002.pth"
    resume = f"train.resume_training_checkpoint_path={start}"
    elsewhere = f"results_dir={workspace.root / 'elsewhere'}"
    with pytest.raises(RequestError, match=r'optim\.optimizer: found "AdamW"; .* with "SGD"'):
        train(workspace.session(*EVERY_TWO[:2], resume, elsewhere))
    train(workspace.session(*EVERY_TWO, resume, elsewhere))
    again = load_checkpoint(workspace.root / "elsewhere" / "train" / "model_epoch_001.pth")
    for name, tensor in whole["model"].items():
        torch.testing.assert_close(again["model"][name], tensor, rtol=0, atol=1e-6, msg=name)


def test_one_that_is_due_when_it_is_stopped(workspace: Workspace) -> None:
    """It is written once, and is where a requeued job goes on."""
    with pytest.raises(Interrupted):
        train(stopping_at(workspace.session(*EVERY_TWO), 1))
    folder = workspace.results / "train"
    assert [path.name for path in folder.glob("*.pth")] == ["model_epoch_000_step_000002.pth"]
    found, _ = resume_point(folder)
    assert found is not None
    assert found.progress == (0, 2)
    assert "already holds checkpoints" in (in_the_way(folder, None) or "")
    assert checkpoint_of(folder, "latest").about == "epoch 0, 2 steps"
