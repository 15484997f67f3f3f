"""An engine on the GPU that is here scores what its checkpoint does, and is timed."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from engine_support import Workspace, open_workspace
from onnx_support import scrambled_weights

from rtdetr_slurm.deploy.actions.evaluate import trt_evaluate
from rtdetr_slurm.deploy.actions.gen_trt_engine import gen_trt_engine
from rtdetr_slurm.engine.actions.export import export
from rtdetr_slurm.engine.process.distributed import Context
from rtdetr_slurm.engine.process.session import Session
from rtdetr_slurm.vision import timing


@pytest.fixture(scope="module")
def workspace(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Workspace]:
    with open_workspace(tmp_path_factory.mktemp("work")) as opened:
        scrambled_weights(opened)
        yield opened


def on_gpu(session: Session) -> Session:
    return replace(session, context=Context(0, 1, 0, 1, torch.device("cuda", 0)))


def test_scores_and_times(workspace: Workspace, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(timing, "PACE", timing.Pace(0.1, 2, 0.1, 0))
    size = ("export.input_height=64", "export.input_width=96")
    weights = f"export.checkpoint={workspace.root / 'weights.pth'}"
    export(on_gpu(workspace.session(weights, *size, name="export")))
    folder = workspace.results
    onnx = f"gen_trt_engine.onnx_file={folder / 'export' / 'rtdetr.onnx'}"
    gen_trt_engine(on_gpu(workspace.session(onnx, name="gen_trt_engine")))
    engine = f"evaluate.trt_engine={folder / 'gen_trt_engine' / 'rtdetr.engine'}"
    given = (engine, "evaluate.checkpoint=''")
    kpis = trt_evaluate(on_gpu(workspace.session(*given, name="trt_evaluate")))
    assert set(kpis) == {"test_mAP", "test_mAP50"}
    for action in ("gen_trt_engine", "trt_evaluate"):
        told = json.loads((folder / action / "parity.json").read_text())
        assert told["accepted"] is True
        forms = {one["form"]: one for one in told["forms"]}
        assert [*forms] == ["checkpoint", "onnx", "engine"]
        found = forms["engine"]
        assert found["runtime"].startswith("tensorrt")
        assert found["device"] == forms["checkpoint"]["device"] == torch.cuda.get_device_name(0)
        assert [one["batch_size"] for one in found["latency"]] == [1, 2, 4]
        assert found["gpu_clocks"]
        assert Path(found["ran"]) == Path(found["file"])
