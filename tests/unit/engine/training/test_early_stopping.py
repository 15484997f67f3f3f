"""A training that ends before its last epoch."""

from __future__ import annotations

from pathlib import Path

import pytest
from engine_support import Workspace, stopping_at, workspace  # noqa: F401

from rtdetr_slurm.engine.actions.train import train
from rtdetr_slurm.engine.process.stop import Interrupted
from rtdetr_slurm.errors import RequestError

# ruff: noqa: F811  (pytest fixtures are arguments of the name they are imported by)

NEVER_BETTER = (
    "train.num_epochs=9",
    "train.checkpoint_interval=9",
    "engine.early_stopping.patience=2",
    "engine.early_stopping.min_delta=1000",
)


def test_patience_lasts_over_interruptions(
    workspace: Workspace, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Stopped within the second and the third epoch (three steps and two batches of validation
    each); it ends after the third, is done when it is started again, and is gone on from only
    where it would do something."""
    folder = workspace.results / "train"
    for number, looks in enumerate((6, 5)):
        with pytest.raises(Interrupted):
            train(stopping_at(workspace.session(*NEVER_BETTER), looks))
        [path] = folder.glob("*.pth")
        assert path.name.startswith(f"interrupted_epoch_{number + 1:03d}_step_")
        monkeypatch.setenv("RTDETR_RESUME", "1")
    train(workspace.session(*NEVER_BETTER))
    assert [path.name for path in folder.glob("*.pth")] == ["model_epoch_002.pth"]
    last = workspace.status()[-1]
    assert last["message"].startswith("stops early after epoch 3: val_mAP was not better than ")
    assert "2 times in a row (engine.early_stopping.patience 2)" in capsys.readouterr().out

    train(workspace.session(*NEVER_BETTER))
    assert [path.name for path in folder.glob("*.pth")] == ["model_epoch_002.pth"]
    assert "stops early after epoch 3" in capsys.readouterr().out

    monkeypatch.delenv("RTDETR_RESUME")
    check_elsewhere(workspace, folder / "model_epoch_002.pth")


def check_elsewhere(workspace: Workspace, path: Path) -> None:
    given = [
        f"train.resume_training_checkpoint_path={path}",
        f"results_dir={workspace.root / 'elsewhere'}",
    ]
    with pytest.raises(RequestError, match=r"engine\.early_stopping\.patience: .* stops early"):
        train(workspace.session(*NEVER_BETTER, *given))
    patient = [one.replace("patience=2", "patience=3") for one in NEVER_BETTER]
    train(workspace.session(*patient, *given))
    found = [path.name for path in (workspace.root / "elsewhere" / "train").glob("*.pth")]
    assert found == ["model_epoch_003.pth"]
