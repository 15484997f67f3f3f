"""When a training has waited long enough for a better value."""

from __future__ import annotations

from pathlib import Path

import pytest
from launch_support import write_checkpoint

from rtdetr_slurm.contract import Status
from rtdetr_slurm.runs.early_stopping import why_stopped, why_stopped_at, without_gain
from rtdetr_slurm.runs.status import StatusLog


@pytest.mark.parametrize(
    ("values", "min_delta", "waited"),
    [
        ([], 0.0, 0),
        ([0.3], 0.0, 0),
        ([0.3, 0.3, 0.2], 0.0, 2),
        ([0.3, 0.2, 0.4], 0.0, 0),
        ([0.3, 0.34, 0.38], 0.05, 0),  # against the best so far, and not against the last
        ([0.3, 0.34, 0.34], 0.05, 2),
    ],
)
def test_values_without_gain(values: list[float], min_delta: float, waited: int) -> None:
    assert without_gain(values, min_delta, higher=True) == waited
    assert without_gain([-value for value in values], min_delta, higher=False) == waited


def test_losses_are_to_fall_and_scores_to_rise() -> None:
    history = {"val_mAP": {0: 0.2, 2: 0.1, 4: 0.15}, "val_loss": {0: 3.0, 2: 2.0, 4: 1.0}}
    assert why_stopped(history, "val_loss", 1, 0.0) is None
    assert why_stopped(history, "val_mAP", 3, 0.0) is None
    assert why_stopped(history, "val_mAP", 0, 0.0) is None
    reason = why_stopped(history, "val_mAP", 2, 0.0)
    assert reason is not None
    assert "after epoch 5: val_mAP was not better than 0.2000 2 times in a row" in reason
    assert why_stopped({}, "val_mAP", 1, 0.0) is None


def test_a_checkpoint_counts_what_lies_behind_it(tmp_path: Path) -> None:
    status = StatusLog(tmp_path / "status.json")
    for epoch, score in enumerate([0.4, 0.3, 0.2, 0.1]):
        write_checkpoint(tmp_path / f"model_epoch_{epoch:03d}.pth")
        status.write(Status.RUNNING, epoch=epoch, kpi={"val_mAP": score})
    assert why_stopped_at(tmp_path / "model_epoch_001.pth", "val_mAP", 2, 0.0) is None
    assert why_stopped_at(tmp_path / "model_epoch_002.pth", "val_mAP", 2, 0.0) is not None
    assert why_stopped_at(tmp_path / "other.pth", "val_mAP", 2, 0.0) is None
