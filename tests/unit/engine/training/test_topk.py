"""Which epochs rank, and which files are left of a training that ranks them."""

from __future__ import annotations

from pathlib import Path

import pytest
from engine_support import Workspace, stopping_at, workspace  # noqa: F401

from rtdetr_slurm.engine.actions.train import train
from rtdetr_slurm.engine.process.stop import Interrupted
from rtdetr_slurm.engine.training.topk import best_epochs
from rtdetr_slurm.runs.checkpoints import kpi_by_epoch, list_checkpoints
from rtdetr_slurm.runs.choice import best_or_last, checkpoint_of

# ruff: noqa: F811  (pytest fixtures are arguments of the name they are imported by)

RANKED = (
    "train.num_epochs=4",
    "train.checkpointer.enable_topk=true",
    "train.checkpointer.save_top_k=2",
    "train.checkpointer.monitor=val_loss",
)


def test_the_later_of_equals_comes_first() -> None:
    values = {0: 0.5, 1: 0.7, 2: 0.7, 3: 0.1}
    assert best_epochs(values, 2, higher=True) == [2, 1]
    assert best_epochs(values, 3, higher=False) == [3, 0, 2]
    assert best_epochs({}, 2, higher=True) == []


def names(folder: Path) -> set[str]:
    return {path.name for path in folder.glob("*.pth")}


def ranked(folder: Path, metric: str = "val_loss", *, higher: bool = False) -> set[int]:
    values = kpi_by_epoch(folder)[metric]
    assert len(values) == 4
    return set(best_epochs(values, 2, higher=higher))


def test_the_best_replace_the_periodic(
    workspace: Workspace, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also when it is interrupted in between, here within the third epoch (two batches of
    validation and three steps each). The last one stays, to go on from."""
    options = (
        *RANKED,
        "train.checkpoint_interval=1",
        "train.checkpointer.replace_periodic=true",
        "train.checkpointer.filename='best-{epoch:02d}-{val_loss:.3f}'",
        f"train.checkpointer.dirpath={workspace.root / 'kept'}",
    )
    with pytest.raises(Interrupted):
        train(stopping_at(workspace.session(*options), 11))
    folder, kept = workspace.results / "train", workspace.root / "kept"
    assert len(names(kept)) == 2
    monkeypatch.setenv("RTDETR_RESUME", "1")
    train(workspace.session(*options))
    best = ranked(folder)
    losses = kpi_by_epoch(folder)["val_loss"]
    assert names(kept) == {f"best-{epoch:02d}-{losses[epoch]:.3f}.pth" for epoch in best}
    assert names(folder) == {f"model_epoch_{epoch:03d}.pth" for epoch in best | {3}}
    for epoch in best:
        name = kept / f"best-{epoch:02d}-{losses[epoch]:.3f}.pth"
        assert name.samefile(folder / f"model_epoch_{epoch:03d}.pth")
    assert [path.name for path in kept.iterdir() if path.suffix != ".pth"] == []

    name.unlink()  # as if the training had been killed before it gave it
    train(workspace.session(*options))
    assert name.samefile(folder / f"model_epoch_{epoch:03d}.pth")

    scores = kpi_by_epoch(folder)["val_mAP"]
    there = {epoch: scores[epoch] for epoch in best | {3}}
    assert best_or_last(folder).path.name == (
        f"model_epoch_{best_epochs(there, 1, higher=True)[0]:03d}.pth"
    )
    assert checkpoint_of(folder, "last").epochs == 4


def test_the_best_are_kept_beside_the_periodic(workspace: Workspace) -> None:
    """An epoch that ranks gets its checkpoint though none is due; mode turns the ranking round."""
    train(workspace.session(*RANKED, "train.checkpoint_interval=3", "train.checkpointer.mode=max"))
    folder = workspace.results / "train"
    best = ranked(folder, higher=True)
    kept = {f"model_epoch_{epoch:03d}.pth" for epoch in best | {2, 3}}
    assert names(folder) == kept | {f"model_best_{epoch:03d}.pth" for epoch in best}
    assert {one.epoch for one in list_checkpoints(folder)} == best | {2, 3}
