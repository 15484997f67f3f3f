"""Checkpoints as ONNX files: what is written, what is said, and what is not overwritten."""

from __future__ import annotations

import hashlib
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from engine_support import Workspace, fresh_detector, fresh_weights, stopping_at, workspace  # noqa: F401
from onnx_support import scramble, tiny_detector

from rtdetr_slurm import __version__
from rtdetr_slurm.engine import onnx_graph
from rtdetr_slurm.engine.actions import export as export_module
from rtdetr_slurm.engine.actions.export import export
from rtdetr_slurm.engine.onnx_graph import trace
from rtdetr_slurm.engine.process.stop import Interrupted
from rtdetr_slurm.engine.training.checkpoint import save_checkpoint
from rtdetr_slurm.errors import ActionError, RequestError
from rtdetr_slurm.runs.claim import Start
from rtdetr_slurm.vision.onnx_metadata import OnnxMetadata
from rtdetr_slurm.vision.onnx_runtime import open_onnx

# ruff: noqa: F811  (pytest fixtures are arguments of the name they are imported by)
CLASSES = {1: "circle", 2: "a square", 3: "triangle"}


def trained(workspace: Workspace, name: str = "model_epoch_002.pth") -> Path:
    """A checkpoint as a training leaves it."""
    session = workspace.session()
    model = fresh_detector(session)
    scramble(model)
    path = workspace.root / name
    content = {"model": model.state_dict(), "ema": None, "optimizer": {}, "epoch": 2}
    save_checkpoint(path, {**content, "classes": CLASSES, "spec": session.resolved})
    return path


def run(workspace: Workspace, checkpoint: Path, *overrides: str) -> dict[str, Any]:
    """Export; returns export.json."""
    given = (f"export.checkpoint={checkpoint}", "export.input_height=64", "export.input_width=96")
    export(workspace.session(*given, *overrides, name="export"))
    found: dict[str, Any] = json.loads((workspace.results / "export/export.json").read_text())
    return found


def test_verbose_prints_the_graph(workspace: Workspace, capfd: pytest.CaptureFixture[str]) -> None:
    checkpoint, alone = trained(workspace), "dataset={num_classes: 4}"
    for asked in (False, True):
        capfd.readouterr()
        run(workspace, checkpoint, f"export.verbose={str(asked).lower()}", alone,
            f"export.onnx_file={workspace.root / str(asked)}.onnx")  # fmt: skip
        assert ("graph(" in capfd.readouterr().out) is asked


class TestExport:
    def test_everything_at_once(self, workspace: Workspace) -> None:
        """A size that is not the data set's, and names from the checkpoint alone."""
        checkpoint = trained(workspace)
        (workspace.root / "metrics_epoch_002.json").write_text(
            json.dumps({"thresholds": {"circle": 0.4, "a square": None}, "more": []})
        )
        told = run(workspace, checkpoint, "export.serialize_nvdsinfer=true", "dataset.workers=1")
        folder = workspace.results / "export"
        detector = open_onnx(folder / "rtdetr.onnx")
        digest = hashlib.sha256(checkpoint.read_bytes()).hexdigest()
        assert detector.metadata == OnnxMetadata(
            __version__, "model_epoch_002.pth", digest, 2, CLASSES, {"circle": 0.4}, 10, False
        )
        assert (detector.size, detector.batch) == ((64, 96), None)
        assert (
            told["onnx_sha256"] == hashlib.sha256((folder / "rtdetr.onnx").read_bytes()).hexdigest()
        )
        parity = told["parity"]
        assert parity["source"] == "dataset.val_data_sources"
        assert (parity["images"], parity["unmatched"], told["not_compared"]) == (5, 0, None)
        assert 0 <= parity["max_difference"] < 1e-4
        assert abs(parity["mAP_difference_points"]) < 0.1
        labels = (folder / "labels.txt").read_text().splitlines()
        assert labels == ["background", "circle", "a square", "triangle"]
        config = yaml.safe_load((folder / "nvdsinfer_config.yaml").read_text())
        assert config["property"]["onnx-file"] == "rtdetr.onnx"
        assert config["class-attrs-1"]["pre-cluster-threshold"] == 0.4
        assert not [path for path in folder.iterdir() if path.name.startswith(".rtdetr")]

    def test_nothing_to_compare_with_is_said(self, workspace: Workspace) -> None:
        """Weights from elsewhere, on a machine that has neither the data nor a GPU, in a folder yet
        to be made."""
        target = workspace.root / "new" / "m.onnx"
        told = run(
            workspace,
            fresh_weights(workspace),
            f"export.onnx_file={target}",
            "export.batch_size=2",
            "export.on_cpu=true",
            "dataset.val_data_sources=null",
            "dataset.test_data_sources.image_dir=/nowhere",
        )
        assert told["parity"] is None
        assert "/nowhere" in told["not_compared"]
        said = [line.get("message", "") for line in workspace.status("export")]
        assert any("not compared with the checkpoint on real images" in line for line in said)
        detector = open_onnx(target)
        assert (detector.batch, detector.metadata.classes) == (2, None)
        with pytest.raises(RequestError, match=r"does not name its classes, and labels\.txt"):
            run(
                workspace,
                fresh_weights(workspace),
                f"export.onnx_file={target.with_name('other.onnx')}",
                "export.serialize_nvdsinfer=true",
            )

    @pytest.mark.parametrize("name", ["m.onnx", "m.onnx.data", "labels.txt"])
    def test_nothing_is_overwritten(self, workspace: Workspace, name: str) -> None:
        """And that is known before the checkpoint is even looked for."""
        target = workspace.root / name
        target.write_text("mine")
        settings = (
            f"export.onnx_file={workspace.root / 'm.onnx'}",
            "export.serialize_nvdsinfer=true",
        )
        with pytest.raises(RequestError, match=f"{name} exists already, and is not overwritten"):
            run(workspace, Path("/no/checkpoint.pth"), *settings)
        assert target.read_text() == "mine"

    def test_a_start_finds_what_the_one_before_has_made(self, workspace: Workspace) -> None:
        """A job that is killed once its file has its name, and before it has said so, is not in its
        own way when it comes again."""
        checkpoint = trained(workspace)
        made = workspace.results / "export" / "rtdetr.onnx"

        def start(claim: str, restart: int) -> None:
            overrides = (
                f"export.checkpoint={checkpoint}",
                "export.input_height=64",
                "export.input_width=64",
                "export.serialize_nvdsinfer=true",
                "dataset.val_data_sources=null",
                "dataset.test_data_sources=null",
            )
            session = workspace.session(*overrides, name="export")
            export(replace(session, start=Start(claim, restart)))

        start("run:export", 0)
        first = made.stat().st_ino
        start("run:export", 1)
        assert made.stat().st_ino == first
        content = torch.load(checkpoint, weights_only=True)
        save_checkpoint(checkpoint, content | {"epoch": 7})  # it has become another
        start("run:export", 1)
        assert open_onnx(made).metadata.epoch == 7
        made.unlink()  # killed before it got its name, and after labels.txt had
        start("run:export", 2)
        assert made.is_file()
        with pytest.raises(RequestError, match=r"exists already, and is not overwritten"):
            start("another:export", 1)
        made.with_name("labels.txt").write_text("mine")
        made.unlink()
        with pytest.raises(RequestError, match=r"labels\.txt exists already"):
            start("run:export", 3)
        assert made.with_name("labels.txt").read_text() == "mine"

    def test_a_file_that_computes_something_else_is_not_kept(
        self, workspace: Workspace, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        other = tiny_detector(4)
        scramble(other, seed=1)
        monkeypatch.setattr(export_module, "trace", lambda _, *a, **k: trace(other, *a, **k))
        with pytest.raises(ActionError, match="does not compute what the checkpoint does"):
            run(workspace, trained(workspace))
        left = {path.name for path in (workspace.results / "export").iterdir()}
        assert not left & {"rtdetr.onnx", "export.json"}

    def test_interrupted(self, workspace: Workspace) -> None:
        checkpoint = trained(workspace)
        session = workspace.session(
            f"export.checkpoint={checkpoint}",
            "export.input_height=64",
            "export.input_width=64",
            name="export",
        )
        with pytest.raises(Interrupted):
            export(stopping_at(session, 1))
        assert not list((workspace.results / "export").glob("*rtdetr.onnx*"))

    def test_averaged_weights_are_exported(
        self, workspace: Workspace, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """Here into two files, as those of a very large model."""
        monkeypatch.setattr(onnx_graph, "MAX_BYTES", 1000)
        path = trained(workspace)
        content = torch.load(path, weights_only=True)
        averaged = {name: value.clone() for name, value in content["model"].items()}
        for name, value in averaged.items():
            if name.endswith("score_head.1.bias"):
                value.fill_(3.0)
        save_checkpoint(path, {**content, "ema": averaged})
        run(workspace, path, "dataset.val_data_sources=null", "dataset.test_data_sources=null")
        made = workspace.results / "export" / "rtdetr.onnx"
        weights = made.with_name("rtdetr.onnx.data")
        assert weights.stat().st_mode == made.stat().st_mode == path.stat().st_mode
        found = open_onnx(made)(torch.rand(1, 3, 64, 96))
        assert found["pred_logits"].mean() > 1.5
