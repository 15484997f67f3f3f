"""Which checkpoint is best, last, or fit to go on from; and which files are none."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from launch_support import write_checkpoint

from rtdetr_slurm.contract import Status
from rtdetr_slurm.runs.checkpoints import (
    best_checkpoint,
    in_the_way,
    kpi_by_epoch,
    last_checkpoint,
    list_checkpoints,
    resume_point,
    verify_checkpoint,
)
from rtdetr_slurm.runs.claim import Start, new_claim, take
from rtdetr_slurm.runs.status import StatusLog


def epochs(folder: Path, *metrics: float | None) -> None:
    """Checkpoints of epochs 0.. with the val_mAP that status.json has for them."""
    status = StatusLog(folder / "status.json")
    for epoch, metric in enumerate(metrics):
        write_checkpoint(folder / f"model_epoch_{epoch:03d}.pth")
        if metric is not None:
            status.write(Status.RUNNING, epoch=epoch, kpi={"val_mAP": metric})


def damage(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 0xFF
    path.write_bytes(data)


def test_a_real_checkpoint_is_whole(tmp_path: Path) -> None:
    torch.save({"model": torch.zeros(1000)}, tmp_path / "a.pth")
    assert verify_checkpoint(tmp_path / "a.pth") is None


@pytest.mark.parametrize("share", [0.3, 0.6, 0.99])
def test_a_torn_checkpoint_is_not(tmp_path: Path, share: float) -> None:
    path = tmp_path / "a.pth"
    torch.save({"model": torch.arange(1000)}, path)
    data = path.read_bytes()
    path.write_bytes(data[: int(len(data) * share)])
    assert str(path) in (verify_checkpoint(path) or "")


def test_other_files_are_no_checkpoints(tmp_path: Path) -> None:
    assert "No such file" in (verify_checkpoint(tmp_path / "none.pth") or "")
    (tmp_path / "text.pth").write_text("no zip")
    assert "cannot be read" in (verify_checkpoint(tmp_path / "text.pth") or "")
    damaged = write_checkpoint(tmp_path / "damaged.pth")
    damage(damaged)
    assert "fails its checksum" in (verify_checkpoint(damaged) or "")


def test_best_is_the_highest_metric_and_last_the_latest_epoch(tmp_path: Path) -> None:
    epochs(tmp_path, 0.1, 0.5, 0.3)
    best, last = best_checkpoint(tmp_path), last_checkpoint(tmp_path)
    assert best is not None
    assert (best.epoch, best.metric) == (1, 0.5)
    assert last is not None
    assert last.path.name == "model_epoch_002.pth"


def test_there_is_no_best_without_a_metric(tmp_path: Path) -> None:
    epochs(tmp_path, None, None)
    assert best_checkpoint(tmp_path) is None
    assert last_checkpoint(tmp_path) is not None


def test_damaged_checkpoints_are_passed_over(tmp_path: Path) -> None:
    epochs(tmp_path, 0.1, 0.5, 0.3)
    damage(tmp_path / "model_epoch_001.pth")
    damage(tmp_path / "model_epoch_002.pth")
    best, last = best_checkpoint(tmp_path), last_checkpoint(tmp_path)
    assert best is not None
    assert best.epoch == 0 or best.metric == 0.3
    assert last is not None
    assert last.epoch == 0


def test_epochs_above_999_are_sorted_as_numbers(tmp_path: Path) -> None:
    for epoch in (998, 1002, 9):
        write_checkpoint(tmp_path / f"model_epoch_{epoch:03d}.pth")
    (tmp_path / "model_epoch_best.pth").touch()
    assert [c.epoch for c in list_checkpoints(tmp_path)] == [9, 998, 1002]


def test_where_an_interrupted_training_goes_on(tmp_path: Path) -> None:
    assert resume_point(tmp_path) == (None, [])
    epochs(tmp_path, 0.1, 0.2)
    assert resumed(tmp_path) == "model_epoch_001.pth"
    interrupted = write_checkpoint(tmp_path / "interrupted_epoch_002_step_000003.pth")
    assert resumed(tmp_path) == interrupted.name
    damage(interrupted)
    found, [problem] = resume_point(tmp_path)
    assert found is not None
    assert found.epoch == 1
    assert interrupted.name in problem


@pytest.mark.parametrize(
    ("files", "furthest"),
    [
        # Killed between writing an epoch's checkpoint and removing the interruption's.
        (["model_epoch_002.pth", "interrupted_epoch_002_step_000010.pth"], "model_epoch_002.pth"),
        # Interrupted twice within one epoch, killed before the first file was removed.
        (
            ["interrupted_epoch_002_step_000009.pth", "interrupted_epoch_002_step_000010.pth"],
            "interrupted_epoch_002_step_000010.pth",
        ),
        # An epoch whose checkpoint_interval skipped it, then an interruption further on.
        (
            ["model_epoch_009.pth", "interrupted_epoch_1000_step_000000.pth"],
            "interrupted_epoch_1000_step_000000.pth",
        ),
        (["interrupted_epoch_003_step_7.pth", "model_epoch_002.pth"], None),
    ],
)
def test_the_furthest_checkpoint_wins(
    tmp_path: Path, files: list[str], furthest: str | None
) -> None:
    for name in files:
        write_checkpoint(tmp_path / name)
    assert resumed(tmp_path) == (furthest or files[0])


def resumed(folder: Path) -> str | None:
    found, _ = resume_point(folder)
    return None if found is None else found.path.name


def test_scores_of_an_earlier_training_in_the_folder_do_not_count(tmp_path: Path) -> None:
    """Its checkpoints were removed, its status.json was not."""
    epochs(tmp_path, 0.9, 0.1, 0.8)
    take(tmp_path, new_claim("b:train", restart=0))
    status = StatusLog(tmp_path / "status.json", Start("b:train"))
    for epoch, metric in ((0, 0.2), (1, 0.3)):
        status.write(Status.RUNNING, epoch=epoch, kpi={"val_mAP": metric})
    assert [c.metric for c in list_checkpoints(tmp_path)] == [0.2, 0.3, None]
    found = best_checkpoint(tmp_path)
    assert found is not None
    assert found.epoch == 1


def test_scores_of_the_training_that_is_gone_on_from_do(tmp_path: Path) -> None:
    epochs(tmp_path, 0.9, 0.1)
    take(tmp_path, new_claim("b:train", restart=0, continues=True))
    StatusLog(tmp_path / "status.json", Start("b:train")).write(
        Status.RUNNING, epoch=1, kpi={"val_mAP": 0.3}
    )
    assert [c.metric for c in list_checkpoints(tmp_path)] == [0.9, 0.3]
    assert kpi_by_epoch(tmp_path) == {"val_mAP": {0: 0.9, 1: 0.3}}


def test_numbers_of_an_epoch_are_numbers(tmp_path: Path) -> None:
    """TAO writes some as text; a value that does not exist is null."""
    lines = (
        {"epoch": 0, "kpi": {"val_mAP": "0.5", "train_loss": 2, "val_loss": None}},
        {"kpi": {"train_loss": 7}},
    )
    text = "".join(json.dumps({"schema_version": 1, **line}) + "\n" for line in lines)
    (tmp_path / "status.json").write_text(text)
    assert kpi_by_epoch(tmp_path) == {"train_loss": {0: 2.0}}


def test_a_training_may_begin_where_it_mixes_with_no_other(tmp_path: Path) -> None:
    folder = tmp_path / "train"
    assert in_the_way(folder, None) is None
    first, last = (write_checkpoint(folder / f"model_epoch_{n:03d}.pth") for n in (0, 1))
    elsewhere = write_checkpoint(tmp_path / "model_epoch_001.pth")
    for named in (None, elsewhere):
        assert "already holds checkpoints of a training" in (in_the_way(folder, named) or "")
    assert f"in {folder} is model_epoch_001.pth: go on" in (in_the_way(folder, first) or "")
    assert in_the_way(folder, last) is None
    (tmp_path / "alias").symlink_to(folder)
    assert in_the_way(tmp_path / "alias", last) is None
    damage(last)
    assert f"in {folder} is model_epoch_000.pth: go on" in (in_the_way(folder, last) or "")
    assert in_the_way(folder, first) is None
    damage(first)
    assert "is damaged" in (in_the_way(folder, first) or "")
