"""quantize with each library, and what takes its result. Importing the libraries takes seconds."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import onnx
import pytest
import torch
from engine_support import Workspace, fresh_detector, open_workspace, stopping_at
from onnx_support import scramble

from rtdetr_slurm.engine.actions.evaluate import evaluate
from rtdetr_slurm.engine.actions.export import export
from rtdetr_slurm.engine.actions.inference import inference
from rtdetr_slurm.engine.actions.quantize import quantize
from rtdetr_slurm.engine.detector import new_detector, trained_detector
from rtdetr_slurm.engine.process.stop import Interrupted
from rtdetr_slurm.engine.training.checkpoint import load_checkpoint, save_checkpoint
from rtdetr_slurm.errors import RequestError
from rtdetr_slurm.vision.onnx_runtime import open_onnx

CLASSES = {1: "circle", 2: "square", 3: "triangle"}
STATIC = ("quantize.backend=modelopt.pytorch", "quantize.mode=static_ptq")


@pytest.fixture(scope="module")
def workspace(tmp_path_factory: pytest.TempPathFactory) -> Any:
    with open_workspace(tmp_path_factory.mktemp("work")) as opened:
        yield opened


@pytest.fixture(scope="module")
def trained(workspace: Workspace) -> Path:
    """A checkpoint as a training leaves it."""
    session = workspace.session()
    model = fresh_detector(session)
    scramble(model)
    path = workspace.root / "model_epoch_002.pth"
    content = {"model": model.state_dict(), "ema": None, "optimizer": {}, "epoch": 2}
    save_checkpoint(path, {**content, "classes": CLASSES, "spec": session.resolved})
    return path


def run(workspace: Workspace, path: Path, *overrides: str) -> dict[str, Any]:
    """Quantize; returns quantize.json."""
    results = workspace.root / f"results-{len(list(workspace.root.iterdir()))}"
    own = (f"quantize.model_path={path}", f"quantize.results_dir={results}")
    kpis = quantize(workspace.session(*own, *overrides, name="quantize"))
    found: dict[str, Any] = json.loads((results / "quantize.json").read_text())
    assert kpis.keys() == {"val_mAP", "val_mAP50"}
    assert kpis["val_mAP"] == found["accuracy"]["after"]["mAP"]
    return found


@pytest.mark.parametrize("options", [("quantize.backend=torchao",), STATIC], ids=["torchao", "mo"])
def test_a_checkpoint(
    workspace: Workspace,
    trained: Path,
    options: tuple[str, ...],
    capsys: pytest.CaptureFixture[str],
) -> None:
    told = run(workspace, trained, *options)
    static = options == STATIC
    path = Path(told["quantized_file"])
    assert path.stat().st_size < 0.5 * trained.stat().st_size
    assert told["calibration"] == (
        {"source": "dataset.train_data_sources", "images": 12} if static else None
    )
    assert told["accuracy"]["source"] == "dataset.val_data_sources"
    assert 0.9 < told["work"]["share"] < 0.99
    first = told["layers"][0]
    assert first["weights"] == "int8"
    assert first["activations"] == ("int8" if static else None)
    assert first["sensitivity"] >= told["layers"][-1]["sensitivity"] > 0
    assert not any(one["name"].startswith("decoder.") for one in told["layers"])
    assert told["left_out"]["decoder.enc_score_head"].startswith("sensitive")
    assert told["left_out"]["decoder.dec_score_head.0"] == "does not run"

    # The plain detector and this one are not the same, and not far from each other.
    image = torch.rand(1, 3, 64, 64)
    made = f"evaluate.checkpoint={path}"
    session = workspace.session(made, "evaluate.is_quantized=true", name="evaluate")
    plain = trained_detector(session, trained).model.eval()(image)["pred_logits"]
    other = trained_detector(session, path, is_quantized=True).model(image)["pred_logits"]
    assert 0 < (plain - other).abs().mean() < 0.2

    assert evaluate(session)["test_mAP"] == told["accuracy"]["after"]["mAP"]
    images = f"dataset.infer_data_sources.image_dir=[{workspace.data}/val/images]"
    used = (f"inference.checkpoint={path}", "inference.is_quantized=true", images)
    inference(workspace.session(*used, name="inference"))
    folder = workspace.root / f"onnx-{static}"
    size = ("export.input_height=64", "export.input_width=96", f"export.results_dir={folder}")
    export(
        workspace.session(
            f"export.checkpoint={path}", "export.is_quantized=true", *size, name="export"
        )
    )
    assert json.loads((folder / "export.json").read_text())["parity"]["images"] == 5
    kinds = [node.op_type for node in onnx.load(folder / "rtdetr.onnx").graph.node]
    assert kinds.count("DequantizeLinear") == len(told["layers"]) * (2 if static else 1)
    assert open_onnx(folder / "rtdetr.onnx").metadata.thresholds.keys() <= {*CLASSES.values()}

    with pytest.raises(RequestError, match=r"holds a quantized detector, which evaluate, inf"):
        evaluate(workspace.session(made, name="evaluate"))
    with pytest.raises(RequestError, match="holds a quantized detector"):
        new_detector(workspace.session(f"train.pretrained_model_path={path}"))
    with pytest.raises(RequestError, match="holds a quantized detector"):
        load_checkpoint(path)
    with pytest.raises(RequestError, match=r"is_quantized: found true; \S* is no checkpoint that"):
        evaluate(workspace.session(f"evaluate.checkpoint={trained}",
                                   "evaluate.is_quantized=true", name="evaluate"))  # fmt: skip
    disagreeing = workspace.session(
        made, "evaluate.is_quantized=true", "quantize.skip_names=[backbone.conv1]", name="evaluate"
    )
    with pytest.raises(RequestError, match=r"quantize\.\w+: found .* was made with"):
        evaluate(disagreeing)
    capsys.readouterr()


def test_an_onnx_file(workspace: Workspace, trained: Path) -> None:
    folder = workspace.root / "plain"
    export(
        workspace.session(
            f"export.checkpoint={trained}", "export.input_height=64", "export.input_width=64",
            f"export.results_dir={folder}", "dataset.val_data_sources=null",
            "dataset.test_data_sources=null", name="export",
        )
    )  # fmt: skip
    options = ("quantize.backend=modelopt.onnx", "quantize.mode=static_ptq", "quantize.device=cpu")
    told = run(workspace, folder / "rtdetr.onnx", *options)
    made = Path(told["quantized_file"])
    assert made.name == "quantized_model_modelopt.onnx"
    before, after = (open_onnx(path) for path in (folder / "rtdetr.onnx", made))
    assert after.metadata == before.metadata
    images = torch.rand(2, 3, 64, 64)
    difference = (before(images)["pred_logits"] - after(images)["pred_logits"]).abs().mean()
    assert 0 < difference < 0.2
    names = {one["name"] for one in told["layers"]}
    assert "backbone.layer1.0.conv1" in names
    assert not any(name.startswith(("decoder", "encoder.encoder.")) for name in names)
    assert told["layers"][0]["sensitivity"] > 0
    assert 0.9 < told["work"]["share"] < 0.99


def test_fp8_and_what_export_says_of_it(workspace: Workspace, trained: Path) -> None:
    rule = "{module_name: 'encoder.fpn*', weights: {dtype: D}, activations: {dtype: D}}"
    layers = f"quantize.layers=[{rule.replace('D', 'float8_e4m3fn')}]"
    told = run(workspace, trained, layers, *STATIC)
    assert {one["weights"] for one in told["layers"]} == {"fp8_e4m3fn"}
    used = (f"export.checkpoint={told['quantized_file']}", "export.is_quantized=true",
            "export.input_height=64", "export.input_width=64",
            f"export.results_dir={workspace.root}/fp8")  # fmt: skip
    with pytest.raises(RequestError, match=r"export\.opset_version: found 17; .* allowed: 19"):
        export(workspace.session(*used, name="export"))
    export(workspace.session(*used, "export.opset_version=19", name="export"))


def test_what_means_nothing_and_what_is_interrupted(workspace: Workspace, trained: Path) -> None:
    path = f"quantize.model_path={trained}"
    useless = "quantize.layers=[{module_name: '*.enc_score_head', weights: {dtype: int8}}]"
    with pytest.raises(RequestError, match=r"layers\[0\].* means no layer; .* decoder\. or enc"):
        quantize(workspace.session(path, useless, name="quantize"))
    session = workspace.session(path, f"quantize.results_dir={workspace.root}/x", name="quantize")
    with pytest.raises(Interrupted):
        quantize(stopping_at(session, 3))
    assert not list((workspace.root / "x").glob("quant*"))
