"""One checkpoint at several sizes, each a file of its own."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from engine_support import Workspace, open_workspace
from onnx_support import exported, scrambled_weights, tiny_detector

from rtdetr_slurm.contract import Env
from rtdetr_slurm.deploy.detector import open_detector
from rtdetr_slurm.deploy.entry import main
from rtdetr_slurm.deploy.sweep import made_in
from rtdetr_slurm.deploy.tensorrt import Built, TensorRt
from rtdetr_slurm.engine.datasets import sources
from rtdetr_slurm.engine.process import loading
from rtdetr_slurm.engine.process.arguments import DeployOptions
from rtdetr_slurm.engine.process.stop import StopFlag
from rtdetr_slurm.vision import timing

CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def workspace(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Workspace]:
    with open_workspace(tmp_path_factory.mktemp("work")) as made:
        scrambled_weights(made)
        yield made


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing is started beside the test, nor changed in its process."""
    monkeypatch.setenv(Env.ACCELERATOR, "cpu")
    monkeypatch.setattr(timing, "PACE", timing.Pace(0, 1, 0, 0))
    monkeypatch.setattr(sources, "workers", lambda _: 0)
    monkeypatch.setattr(loading, "start_server", lambda: None)
    monkeypatch.setattr(StopFlag, "listen", lambda _: None)


def words(workspace: Workspace, folder: Path, *more: str) -> list[str]:
    given = (f"export.checkpoint={workspace.root / 'weights.pth'}", f"results_dir={folder}")
    return ["sweep", "-e", str(workspace.spec_file()), *given, *more]


@pytest.mark.usefixtures("quick")
def test_sweep(workspace: Workspace, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    asked = ("--num-queries", "5,10", "--size", "64x96", "--eval-idx", "0", "--precision", "fp32")
    assert main(words(workspace, tmp_path, *asked)) == 0
    folder = tmp_path / "sweep"
    assert capsys.readouterr().out.splitlines()[-1] == str(folder / "sweep.json")
    told = json.loads((folder / "sweep.json").read_text())
    assert [one["name"] for one in told["forms"]] == ["64x96-q5-e0-fp32", "64x96-q10-e0-fp32"]
    assert told["images"] == 5
    assert any(one["on_front"] for one in told["forms"])
    for one, queries in zip(told["forms"], (5, 10), strict=True):
        detector = open_detector(Path(one["file"]), None, CPU)
        assert (detector.num_queries, detector.size) == (queries, (64, 96))
        assert detector.metadata.num_select == min(10, queries * 4)
        assert [each["batch_size"] for each in one["latency"]] == [1, 2, 4]
    assert "64x96-q5-e0-fp32" in (folder / "report.html").read_text()
    assert main(words(workspace, tmp_path)) == 2
    assert "sweep.json exists already, and is not overwritten" in capsys.readouterr().err


@pytest.mark.usefixtures("quick")
@pytest.mark.parametrize(
    ("more", "said"),
    [
        (("dataset.val_data_sources=null", "dataset.test_data_sources=null"), "annotated images"),
        (("encryption_key=a-long-secret-key",), "other users of this machine see a command line"),
        (("export.checkpoint=",), "given twice"),
    ],
)
def test_what_cannot_be_swept(
    workspace: Workspace,
    tmp_path: Path,
    more: tuple[str, ...],
    said: str,
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert main(words(workspace, tmp_path, *more)) == 2
    assert said in capsys.readouterr().err


def test_engines_are_built_where_tensorrt_runs_them(
    workspace: Workspace, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(TensorRt, "build", lambda *_: Built(b"a plan", None, "INFO: built\n"))
    session = workspace.session("gen_trt_engine.onnx_file=/none", name="gen_trt_engine")
    deploy = DeployOptions("tensorrt_rtx", compute_capability="8.9")
    onnx = exported(tmp_path, tiny_detector(num_classes=4), (64, 64))
    inside = replace(session, deploy=deploy, results_dir=tmp_path)
    made, share = made_in("FP32", inside, onnx)
    assert (made, share) == (tmp_path / "fp32.engine", 0)
    assert made.read_bytes() == b"a plan"
    assert open_detector(made, "onnxruntime", CPU).size == (64, 64)
