"""Engines and ONNX files score what their checkpoint does, and leave the same files.

ONNX Runtime stands in for TensorRT: all but the call itself is the same. The images are annotated
with what the detector finds in them, so that whatever is done to them otherwise than in PyTorch
shows in the scores.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from coco_support import written
from engine_support import Workspace, fresh_detector, open_workspace
from onnx_support import scramble
from PIL import Image

from rtdetr_slurm.data.pixels import load_image
from rtdetr_slurm.deploy.actions.evaluate import trt_evaluate
from rtdetr_slurm.deploy.actions.inference import trt_inference
from rtdetr_slurm.engine.actions.evaluate import evaluate
from rtdetr_slurm.engine.actions.export import export
from rtdetr_slurm.engine.actions.inference import inference
from rtdetr_slurm.engine.datasets import sources
from rtdetr_slurm.engine.models import RTDETR
from rtdetr_slurm.engine.process.arguments import DeployOptions
from rtdetr_slurm.engine.training.checkpoint import save_checkpoint
from rtdetr_slurm.errors import ActionError, RequestError
from rtdetr_slurm.vision import timing
from rtdetr_slurm.vision.postprocess import postprocess
from rtdetr_slurm.vision.preprocess import Resize, preprocess

CLASSES = {1: "circle", 2: "square", 3: "triangle"}
SIZE = (64, 96)
ORIENTATION = 0x0112
CHECKPOINT = "model_epoch_002.pth"


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Workspace]:
    """A checkpoint and its ONNX file, and images of odd shapes, one of them turned by EXIF."""
    with open_workspace(tmp_path_factory.mktemp("work")) as workspace:
        session = workspace.session()
        model = fresh_detector(session).eval()
        scramble(model)
        _even(model)
        _annotate(workspace.data / "val", model)
        content = {"model": model.state_dict(), "ema": None, "optimizer": {}, "epoch": 2}
        checkpoint = workspace.root / CHECKPOINT
        save_checkpoint(checkpoint, {**content, "classes": CLASSES, "spec": session.resolved})
        export(
            workspace.session(
                f"export.checkpoint={checkpoint}",
                f"export.input_height={SIZE[0]}",
                f"export.input_width={SIZE[1]}",
                "dataset.val_data_sources=null",
                "dataset.test_data_sources=null",
                name="export",
            )
        )
        yield workspace


@torch.no_grad()
def _even(model: RTDETR) -> None:
    """Let no class stand out, so that all of them are found."""
    logits = model(torch.rand(4, 3, *SIZE))["pred_logits"]
    for head in model.decoder.dec_score_head:
        head.bias -= logits.mean((0, 1))


def _annotate(folder: Path, model: RTDETR) -> None:
    path = folder / "annotations.json"
    told = json.loads(path.read_text())
    told["annotations"] = []
    for number, image in enumerate(told["images"]):
        file = folder / "images" / image["file_name"]
        picture = Image.open(file).resize((71 + 12 * number, 97 - 8 * number))
        exif = Image.Exif()
        if not number:
            exif[ORIENTATION] = 6
        picture.save(file, exif=exif, quality=95)
        upright = load_image(file)
        assert isinstance(upright, np.ndarray)
        image["height"], image["width"] = upright.shape[:2]
        with torch.no_grad():
            found = model(preprocess(upright, Resize(SIZE)))
        sides = torch.tensor([[image["width"], image["height"]]])
        best = postprocess(found["pred_logits"], found["pred_boxes"], sides, 3)
        for corners, label in zip(best.boxes[0].tolist(), best.labels[0].tolist(), strict=True):
            x, y, right, bottom = corners
            told["annotations"].append({
                "id": len(told["annotations"]) + 1,
                "image_id": image["id"],
                "category_id": label,
                "bbox": [x, y, right - x, bottom - y],
                "area": (right - x) * (bottom - y),
                "iscrowd": 0,
            })  # fmt: skip
    told["categories"] = [{"id": n, "name": f"class {n}"} for n in range(4)]
    path.write_text(json.dumps(told))


@pytest.fixture
def workspace(made: Workspace, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Workspace:
    """With results of its own, and in a hurry: no process is started to load five images."""
    monkeypatch.setattr(sources, "workers", lambda _: 0)
    monkeypatch.setattr(timing, "PACE", timing.Pace(0, 1, 0, 0))
    made.results = tmp_path
    return made


def engine(workspace: Workspace, section: str) -> tuple[str, str]:
    path = workspace.root / "results" / "export" / "rtdetr.onnx"
    return f"{section}.trt_engine={path}", f"{section}.checkpoint=''"


def weights(workspace: Workspace, section: str) -> tuple[str, ...]:
    return (
        f"{section}.checkpoint={workspace.root / CHECKPOINT}",
        f"{section}.input_height={SIZE[0]}",
        f"{section}.input_width={SIZE[1]}",
    )


def read(path: Path) -> Any:
    return json.loads(path.read_text())


def test_scores(workspace: Workspace) -> None:
    """With classes that do not count, few detections, and batches that do not come out even."""
    asked = ("dataset.eval_class_ids=[0, 1, 2]", "model.num_select=7", "evaluate.batch_size=3")
    before = evaluate(workspace.session(*weights(workspace, "evaluate"), *asked, name="evaluate"))
    sizes = ("evaluate.input_height=640", "evaluate.input_width=640")
    given = (*engine(workspace, "evaluate"), *asked, *sizes)
    after = trt_evaluate(workspace.session(*given, name="trt_evaluate"))
    assert before["test_mAP"] > 0.5
    assert after == pytest.approx(before, abs=1e-3)
    folders = [workspace.results / name for name in ("evaluate", "trt_evaluate")]
    files = [{path.name for path in folder.iterdir()} for folder in folders]
    assert files[1] - files[0] == {"parity.json"}
    assert files[0] <= files[1]
    scored = read(folders[1] / "metrics.json")
    assert scored["detections"] == read(folders[0] / "metrics.json")["detections"]
    assert (scored["precision"], scored["checkpoint"], scored["epoch"]) == ("FP32", CHECKPOINT, 2)

    told = read(folders[1] / "parity.json")
    assert (told["images"], told["reference"], told["accepted"]) == (5, "checkpoint", True)
    assert abs(told["drop_points"]) < 0.1
    forms = {one["form"]: one for one in told["forms"]}
    assert [*forms] == ["checkpoint", "onnx"]
    assert forms["checkpoint"]["file"] == str(workspace.root / CHECKPOINT)
    assert [one["batch_size"] for one in forms["onnx"]["latency"]] == [1, 2, 4]
    assert all(one["p50"] <= one["p99"] for one in forms["onnx"]["latency"])
    assert "Accuracy against latency" in (folders[1] / "report.html").read_text()
    said = [line.get("message", "") for line in workspace.status("trt_evaluate")]
    assert any("num_select is 7, and the detector was exported with 10" in line for line in said)
    assert any("found 640 x 640, and the detector was exported for 64 x 96" in one for one in said)


def test_images_that_keep_their_aspect_ratio(workspace: Workspace) -> None:
    """What was exported for them scores as its checkpoint does, and is refused for others."""
    keeps = "dataset.augmentation.preserve_aspect_ratio=true"
    export(workspace.session(*weights(workspace, "export"), keeps, name="export"))
    told = read(workspace.results / "export" / "export.json")
    assert told["preprocessing"]["resize"] == "preserve aspect ratio, pad right and bottom with 0"
    onnx_file = f"evaluate.trt_engine={workspace.results / 'export' / 'rtdetr.onnx'}"
    given = (onnx_file, "evaluate.checkpoint=''")
    before = evaluate(workspace.session(*weights(workspace, "evaluate"), keeps, name="evaluate"))
    after = trt_evaluate(workspace.session(*given, keeps, name="trt_evaluate"))
    assert after == pytest.approx(before, abs=1e-3)
    stretched = evaluate(workspace.session(*weights(workspace, "evaluate"), name="evaluate"))
    assert stretched["test_mAP"] > before["test_mAP"] + 0.1  # the boxes are of stretched images
    said = r"preserve_aspect_ratio: found false; allowed: true, which the detector was exported"
    with pytest.raises(RequestError, match=said):
        trt_evaluate(workspace.session(*given, name="trt_evaluate"))
    with pytest.raises(RequestError, match=r"preserve_aspect_ratio: found true; allowed: false"):
        trt_evaluate(workspace.session(*engine(workspace, "evaluate"), keeps, name="trt_evaluate"))


def test_inference(workspace: Workspace, tmp_path: Path) -> None:
    """Line 1 of a class map is class 0 of both, boxes lie in the image as it is shown, and there
    are as many detections as num_select says."""
    names = written(tmp_path / "map.txt", "zero\none\ntwo\nthree\n")
    images = workspace.data / "val" / "images"
    asked = (
        f"dataset.infer_data_sources={{image_dir: ['{images}'], classmap: '{names}'}}",
        "inference.conf_threshold=0",
        "dataset.val_data_sources=null",
    )
    bare = ("dataset.test_data_sources=null", *asked)
    inference(workspace.session(*weights(workspace, "inference"), *bare, name="inference"))
    with_engine = (*engine(workspace, "inference"), *bare)
    trt_inference(workspace.session(*with_engine, name="trt_inference"))
    one, other = (workspace.results / name for name in ("inference", "trt_inference"))
    rows = [read(folder / "predictions.json") for folder in (one, other)]
    assert len(rows[0]) == len(rows[1]) == 50
    for first, second in zip(*rows, strict=True):
        assert first["category_id"] == second["category_id"]
        assert first["bbox"] == pytest.approx(second["bbox"], abs=0.02)
        assert first["score"] == pytest.approx(second["score"], abs=1e-4)
    assert read(one / "images.json")["images"] == read(other / "images.json")["images"]
    assert read(one / "images.json")["categories"] == read(other / "images.json")["categories"]
    lines = [sorted((folder / "labels").iterdir())[0].read_text() for folder in (one, other)]
    assert [line.split()[0] for line in lines[0].splitlines()] == [
        line.split()[0] for line in lines[1].splitlines()
    ]
    told = read(other / "parity.json")
    assert told["not_known"] == (
        "neither dataset.val_data_sources nor dataset.test_data_sources is set"
    )
    assert (told["accepted"], told["forms"]) == (None, [])


def test_too_much_is_lost(workspace: Workspace) -> None:
    """Before an image is looked at; what there is to know is written."""
    asked = (
        *engine(workspace, "inference"),
        f"dataset.infer_data_sources={{image_dir: ['{workspace.data / 'val' / 'images'}']}}",
    )
    session = workspace.session(*asked, name="trt_inference")
    with pytest.raises(ActionError, match=r"the onnx loses .* against the checkpoint .*-1 are all"):
        trt_inference(replace(session, deploy=DeployOptions(max_map_drop=-1)))
    told = read(workspace.results / "trt_inference" / "parity.json")
    assert (told["accepted"], told["source"]) == (False, "dataset.val_data_sources")
    assert not (workspace.results / "trt_inference" / "predictions.json").exists()


def test_a_spec_that_says_nothing_of_the_model(
    workspace: Workspace, capsys: pytest.CaptureFixture[str]
) -> None:
    """The checkpoint says itself what it is."""
    session = workspace.session(*engine(workspace, "evaluate"), name="trt_evaluate", model={})
    trt_evaluate(session)
    told = read(workspace.results / "trt_evaluate" / "parity.json")
    assert (told["reference"], told["accepted"]) == ("checkpoint", True)
    assert abs(told["drop_points"]) < 0.1
    assert f"{CHECKPOINT} is compared as it was trained" in capsys.readouterr().out


def test_a_file_that_says_nothing_of_itself(workspace: Workspace, tmp_path: Path) -> None:
    """The spec's values stand in, and that nothing is known of its checkpoint is said."""
    model = onnx.load(workspace.root / "results" / "export" / "rtdetr.onnx")
    del model.metadata_props[:]
    onnx.save_model(model, tmp_path / "bare.onnx")
    given = (f"evaluate.trt_engine={tmp_path / 'bare.onnx'}", "evaluate.checkpoint=''")
    assert trt_evaluate(workspace.session(*given, name="trt_evaluate"))["test_mAP"] > 0.5
    told = read(workspace.results / "trt_evaluate" / "parity.json")
    assert "does not say which checkpoint it was exported from" in told["not_known"]
    assert [one["form"] for one in told["forms"]] == ["onnx"]
    said = [line.get("message", "") for line in workspace.status("trt_evaluate")]
    assert any("the file says nothing of itself" in line for line in said)


@pytest.mark.parametrize(
    ("asked", "said"),
    [
        ("dataset.num_classes=5", r"dataset\.num_classes: found 5; allowed: 4"),
        ("evaluate.trt_engine=/no.onnx", r"/no\.onnx does not exist"),
    ],
)
def test_what_the_spec_says_and_the_file_is_not(
    workspace: Workspace, asked: str, said: str
) -> None:
    given = {one.partition("=")[0]: one for one in (*engine(workspace, "evaluate"), *asked.split())}
    with pytest.raises(RequestError, match=said):
        trt_evaluate(workspace.session(*given.values(), name="trt_evaluate"))
