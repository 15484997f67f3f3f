"""Which checkpoint is meant by best, last, latest and epoch:N."""

from __future__ import annotations

from pathlib import Path

import pytest
from launch_support import write_checkpoint

from rtdetr_slurm.contract import Status
from rtdetr_slurm.errors import RequestError
from rtdetr_slurm.runs.choice import best_or_last, checkpoint_of
from rtdetr_slurm.runs.status import StatusLog


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Epochs 0, 1 and 3, the second the best, and an interruption in the one after."""
    status = StatusLog(tmp_path / "status.json")
    for epoch, metric in ((0, 0.1), (1, 0.5), (3, 0.3)):
        write_checkpoint(tmp_path / f"model_epoch_{epoch:03d}.pth")
        status.write(Status.RUNNING, epoch=epoch, kpi={"val_mAP": metric})
    write_checkpoint(tmp_path / "interrupted_epoch_004_step_000007.pth")
    return tmp_path


def damage(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:100])


@pytest.mark.parametrize(
    ("choice", "name", "about", "epochs"),
    [
        ("best", "model_epoch_001.pth", "epoch 1, val_mAP 0.5000", 2),
        ("last", "model_epoch_003.pth", "epoch 3, val_mAP 0.3000", 4),
        ("latest", "interrupted_epoch_004_step_000007.pth", "epoch 4, 7 steps", 4),
        ("epoch:0", "model_epoch_000.pth", "epoch 0, val_mAP 0.1000", 1),
        ("epoch:3", "model_epoch_003.pth", "epoch 3, val_mAP 0.3000", 4),
    ],
)
def test_each_choice_is_one_file(
    folder: Path, choice: str, name: str, about: str, epochs: int
) -> None:
    found = checkpoint_of(folder, choice)
    assert (found.path.name, found.about, found.epochs) == (name, about, epochs)
    damage(folder / name)
    with pytest.raises(RequestError, match=rf"{name} .*; there are those of epochs 0, 1, 3"):
        checkpoint_of(folder, choice)


def test_what_there_is_not_says_what_there_is(folder: Path, tmp_path: Path) -> None:
    with pytest.raises(
        RequestError, match=r"no checkpoint of epoch 2 in .*; there are those of ep"
    ):
        checkpoint_of(folder, "epoch:2")
    (folder / "status.json").unlink()
    with pytest.raises(RequestError, match=r"no checkpoint with a val_mAP.*epochs 0, 1, 3"):
        checkpoint_of(folder, "best")
    for choice in ("best", "last", "latest", "epoch:0"):
        with pytest.raises(RequestError, match="there is no checkpoint"):
            checkpoint_of(tmp_path / "empty", choice)
    with pytest.raises(RequestError, match="there is no whole checkpoint"):
        best_or_last(tmp_path / "empty")


def test_without_a_choice_the_best_and_what_was_passed_over_is_said(folder: Path) -> None:
    assert best_or_last(folder).path.name == "model_epoch_001.pth"
    damage(folder / "model_epoch_001.pth")
    found = best_or_last(folder)
    assert found.path.name == "model_epoch_003.pth"
    assert "model_epoch_001.pth cannot be read" in found.about
    assert "passed over" in found.about
    (folder / "status.json").unlink()
    assert best_or_last(folder).path.name == "model_epoch_003.pth"


def test_latest_is_where_taos_link_leads(folder: Path) -> None:
    link = folder / "rtdetr_model_latest.pth"
    link.symlink_to("model_epoch_000.pth")
    found = checkpoint_of(folder, "latest")
    assert (found.path.name, found.epochs) == ("model_epoch_000.pth", 1)
    assert found.about == "by rtdetr_model_latest.pth"
    link.unlink()
    link.symlink_to("gone.pth")
    with pytest.raises(RequestError, match=r"gone\.pth cannot be read"):
        checkpoint_of(folder, "latest")
    (folder / "other_latest.pth").symlink_to("model_epoch_000.pth")
    with pytest.raises(RequestError, match="has several of"):
        checkpoint_of(folder, "latest")
