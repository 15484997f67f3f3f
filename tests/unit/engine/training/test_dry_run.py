"""One step of each."""

from __future__ import annotations

import pytest
from engine_support import Workspace, stopping_at, workspace  # noqa: F401

from rtdetr_slurm.actions import get_action
from rtdetr_slurm.engine.actions.train import train
from rtdetr_slurm.engine.process.stop import Interrupted
from rtdetr_slurm.runs.artefacts import artefact_problem

# ruff: noqa: F811  (pytest fixtures are arguments of the name they are imported by)


def test_leaves_no_checkpoint(workspace: Workspace, capsys: pytest.CaptureFixture[str]) -> None:
    session = workspace.session("train.is_dry_run=true", "train.num_epochs=50")
    kpi = train(session)
    assert set(kpi) == {"train_loss", "val_mAP", "val_mAP50", "val_loss"}
    assert session.phases.steps_done == 2
    assert not [*workspace.results.rglob("*.pth")]
    assert not [line for line in workspace.status() if "epoch" in line]
    said = capsys.readouterr().out
    assert "dry run: one step of training, one batch of validation, no checkpoint" in said
    folder = workspace.results / "train"
    assert artefact_problem(get_action("train"), folder, session.resolved) is None
    train(workspace.session("train.num_epochs=1", "train.checkpoint_interval=1"))  # nothing's there


def test_leaves_none_when_it_is_stopped(workspace: Workspace) -> None:
    with pytest.raises(Interrupted):
        train(stopping_at(workspace.session("train.is_dry_run=true"), 0))
    assert not [*workspace.results.rglob("*.pth")]
