"""What proves an action's success, and what is recorded of it."""

from __future__ import annotations

import hashlib
from dataclasses import replace
from pathlib import Path

import pytest
from launch_support import STAGE, write_checkpoint

from rtdetr_slurm.actions import get_action
from rtdetr_slurm.contract import Status
from rtdetr_slurm.plan.model import StageTask
from rtdetr_slurm.runs import artefacts
from rtdetr_slurm.runs.artefacts import (
    Results,
    artefact_problem,
    results_of,
    verified_checkpoints,
)
from rtdetr_slurm.runs.status import StatusLog


def epochs(folder: Path, *metrics: float | None) -> None:
    status = StatusLog(folder / "status.json")
    for epoch, metric in enumerate(metrics):
        write_checkpoint(folder / f"model_epoch_{epoch:03d}.pth", content=f"epoch {epoch}")
        if metric is not None:
            status.write(Status.RUNNING, epoch=epoch, kpi={"val_mAP": metric})


def tear(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-50])


def test_a_training_leaves_a_whole_checkpoint(tmp_path: Path) -> None:
    train = get_action("train")
    assert "there is no model_epoch_*.pth in" in (artefact_problem(train, tmp_path, {}) or "")
    epochs(tmp_path, 0.5, 0.1)
    assert artefact_problem(train, tmp_path, {}) is None
    tear(tmp_path / "model_epoch_001.pth")
    assert "cannot be read" in (artefact_problem(train, tmp_path, {}) or "")


def test_an_evaluation_leaves_its_metrics(tmp_path: Path) -> None:
    evaluate = get_action("evaluate")
    assert "metrics.json cannot be read" in (artefact_problem(evaluate, tmp_path, {}) or "")
    (tmp_path / "metrics.json").write_text('{"metrics"')
    assert "metrics.json: this is not JSON" in (artefact_problem(evaluate, tmp_path, {}) or "")
    (tmp_path / "metrics.json").write_text("{}")
    assert artefact_problem(evaluate, tmp_path, {}) is None


def test_predictions_of_very_many_images_are_not_taken_into_memory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(artefacts, "_PARSED_BYTES", 100)
    inference, path = get_action("inference"), tmp_path / "predictions.json"
    path.write_text("[" + 200 * "x" + "\n]\n")
    assert artefact_problem(inference, tmp_path, {}) is None
    path.write_text("[" + 200 * "x")
    assert "predictions.json was cut off" in (artefact_problem(inference, tmp_path, {}) or "")


def test_an_export_leaves_the_file_that_the_spec_names(tmp_path: Path) -> None:
    export, path = get_action("export"), tmp_path / "a.onnx"
    assert f"{tmp_path}/rtdetr.onnx" in (artefact_problem(export, tmp_path, {}) or "")
    spec = {"export": {"onnx_file": str(path)}}
    assert "a.onnx cannot be read" in (artefact_problem(export, tmp_path, spec) or "")
    path.touch()
    assert "a.onnx is empty" in (artefact_problem(export, tmp_path, spec) or "")
    path.write_text("onnx")
    assert artefact_problem(export, tmp_path, spec) is None


def test_best_and_last_are_recorded_with_their_digests(tmp_path: Path) -> None:
    epochs(tmp_path, 0.1, 0.5, 0.3, 0.2)
    tear(tmp_path / "model_epoch_003.pth")
    recorded = verified_checkpoints(tmp_path)
    best = tmp_path / "model_epoch_001.pth"
    assert recorded["best"] == {
        "file": best.name,
        "epoch": 1,
        "metric": 0.5,
        "sha256": hashlib.sha256(best.read_bytes()).hexdigest(),
    }
    assert recorded["last"]["file"] == "model_epoch_002.pth"
    assert verified_checkpoints(tmp_path / "none") == {}


def test_of_an_ended_stage_the_record_speaks_and_of_a_running_one_the_folder(
    tmp_path: Path,
) -> None:
    task = StageTask(replace(STAGE, results_dir=str(tmp_path)))
    epochs(tmp_path, 0.1, 0.5, 0.3)
    running = results_of(task, None)
    assert (running.best, running.best_metric) == (tmp_path / "model_epoch_001.pth", 0.5)
    assert running.last == tmp_path / "model_epoch_002.pth"
    end = {"event": "finished", "checkpoints": verified_checkpoints(tmp_path)}
    for path in tmp_path.glob("*.pth"):
        path.unlink()
    assert results_of(task, end) == running
    assert results_of(task, {"event": "finished"}) == Results()
