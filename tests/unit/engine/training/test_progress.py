"""How long a training still takes, as its screen and its status.json say alike."""

from __future__ import annotations

import json
from datetime import timedelta

import pytest
from engine_support import Workspace, workspace  # noqa: F401

from rtdetr_slurm.engine.actions.train import train
from rtdetr_slurm.engine.training import progress
from rtdetr_slurm.engine.training.progress import TrainingProgress
from rtdetr_slurm.runs.progress import progress_of

# ruff: noqa: F811  (pytest fixtures are arguments of the name they are imported by)


def test_the_time_left_has_the_validations_to_come(monkeypatch: pytest.MonkeyPatch) -> None:
    """Three epochs of four steps, 2 s each, and 10 s after each epoch."""
    now = 0.0
    monkeypatch.setattr(progress.time, "monotonic", lambda: now)
    shown = TrainingProgress(3, 4, 1, quiet=True)
    left = []
    for step in range(1, 13):
        now += 2
        shown.update("", 12 - step, 1.0, 1.0)
        left.append(shown.remaining(12 - step))
        if step % 4 == 0:
            now += 10
            shown.end_epoch()
            left.append(shown.remaining(12 - step))
    assert left[3] == timedelta(seconds=16)  # nothing is known of an epoch's end yet
    # 16 s of steps and 20 s of validations after the first epoch, and so on to the end
    assert [one.seconds for one in left[4:]] == [36, 34, 32, 30, 28, 18, 16, 14, 12, 10, 0]


def test_the_epochs_of_status_json_are_those_of_the_screen(
    workspace: Workspace, capsys: pytest.CaptureFixture[str]
) -> None:
    train(workspace.session("train.num_epochs=2"))
    lines = workspace.status()
    assert [line["message"] for line in lines] == ["epoch 1/2 finished", "epoch 2/2 finished"]
    assert [line["epoch"] for line in lines] == [0, 1]  # as TAO counts
    assert [progress_of([line]).shown_epoch for line in lines] == ["1/2", "2/2"]
    said = capsys.readouterr().out
    assert "epoch 2/2 step 3/3" in said or "epoch 1/2 step 1/3" in said
    assert json.dumps(lines[-1]["eta"]) == '"0:00:00"'
