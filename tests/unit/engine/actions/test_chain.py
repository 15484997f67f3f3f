"""Options that several actions have to understand alike, from a training to its ONNX file: sizes
that are no squares, and MS COCO's category ids."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from engine_support import Workspace, open_workspace
from torch import Tensor

from rtdetr_slurm.engine.actions.evaluate import evaluate
from rtdetr_slurm.engine.actions.export import export
from rtdetr_slurm.engine.actions.inference import inference
from rtdetr_slurm.engine.actions.train import train
from rtdetr_slurm.engine.models import RTDETR
from rtdetr_slurm.engine.training.checkpoint import load_checkpoint
from rtdetr_slurm.errors import RequestError
from rtdetr_slurm.vision.onnx_runtime import open_onnx

MSCOCO = {1: 1, 2: 13, 3: 90}
"""The sample's ids to some of MS COCO's."""
CLASSES = {0: "circle", 11: "square", 79: "triangle"}
REMAPPED = ("dataset.remap_mscoco_category=true", "dataset.num_classes=80")
SIZES = (
    "dataset.augmentation={train_spatial_size: [64, 128], eval_spatial_size: [64, 96], "
    "multi_scales: [[96, 64], [64, 160], 64]}"
)
Shape = tuple[int, int]


@pytest.fixture(scope="module")
def workspace(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Workspace]:
    with open_workspace(tmp_path_factory.mktemp("work")) as opened:
        for split in ("train", "val"):
            path = opened.data / split / "annotations.json"
            content = json.loads(path.read_text())
            for entry in (*content["categories"], *content["annotations"]):
                key = "id" if "name" in entry else "category_id"
                entry[key] = MSCOCO[entry[key]]
            path.write_text(json.dumps(content))
        yield opened


@pytest.fixture
def seen(monkeypatch: pytest.MonkeyPatch) -> list[tuple[bool, Shape]]:
    """Whether the detector trains, and height and width of what it is given, call by call."""
    found: list[tuple[bool, Shape]] = []
    original = RTDETR.forward

    def forward(self: RTDETR, images: Tensor, *targets: Any) -> Any:
        found.append((self.training, (images.shape[2], images.shape[3])))
        return original(self, images, *targets)

    monkeypatch.setattr(RTDETR, "forward", forward)
    return found


@pytest.fixture(scope="module")
def trained(workspace: Workspace) -> Path:
    train(workspace.session(*REMAPPED, SIZES, "train.num_epochs=1", "train.checkpoint_interval=1"))
    return workspace.results / "train" / "model_epoch_000.pth"


def read(path: Path) -> Any:
    return json.loads(path.read_text())


def test_training_sizes_are_height_and_width(
    workspace: Workspace, seen: list[tuple[bool, Shape]]
) -> None:
    workspace.results = workspace.root / "sizes"
    train(workspace.session(*REMAPPED, SIZES, "train.checkpoint_interval=2"))
    stepped = {size for training, size in seen if training}
    assert {(96, 64), (64, 160)} <= stepped <= {(96, 64), (64, 160), (64, 64)}
    assert {size for training, size in seen if not training} == {(64, 96)}
    seen.clear()
    workspace.results = workspace.root / "one-size"
    sizes = "dataset.augmentation={train_spatial_size: [64, 128], multi_scales: []}"
    once = ("train.num_epochs=1", "train.checkpoint_interval=1")
    train(workspace.session(*REMAPPED, sizes, "dataset.val_data_sources=null", *once))
    assert {size for training, size in seen if training} == {(64, 128)}
    workspace.results = workspace.root / "results"


def test_evaluate_and_inference(
    workspace: Workspace, trained: Path, seen: list[tuple[bool, Shape]]
) -> None:
    assert load_checkpoint(trained)["classes"] == CLASSES
    weights = f"evaluate.checkpoint={trained}"
    evaluate(workspace.session(weights, *REMAPPED, SIZES, name="evaluate"))
    assert {size for _, size in seen} == {(64, 96)}
    told = read(workspace.results / "evaluate" / "metrics.json")
    assert told["input_size"] == [64, 96]
    assert told["classes"] == {str(number): name for number, name in CLASSES.items()}
    with pytest.raises(RequestError, match=r"num_classes"):
        evaluate(workspace.session(weights, "dataset.num_classes=80", SIZES, name="evaluate"))

    seen.clear()
    given = (
        f"inference.checkpoint={trained}",
        f"dataset.infer_data_sources={{image_dir: ['{workspace.data / 'val' / 'images'}']}}",
        "inference.conf_threshold=0",
        "inference.input_height=96",
        "inference.input_width=64",
    )
    inference(workspace.session(*given, *REMAPPED, SIZES, name="inference"))
    assert {size for _, size in seen} == {(96, 64)}
    folder = workspace.results / "inference"
    names = {one["id"]: one["name"] for one in read(folder / "images.json")["categories"]}
    assert {number: names[number] for number in CLASSES} == CLASSES
    assert {one["category_id"] for one in read(folder / "predictions.json")} <= {*range(80)}


def test_export(workspace: Workspace, trained: Path) -> None:
    """At a size of its own, compared on images whose ids are MS COCO's."""
    size = ("export.input_height=96", "export.input_width=160")
    given = (f"export.checkpoint={trained}", *size, *REMAPPED)
    export(workspace.session(*given, name="export"))
    told = read(workspace.results / "export" / "export.json")
    assert told["inputs"] == {"inputs": [None, 3, 96, 160]}
    assert told["parity"]["images"] == 5
    detector = open_onnx(workspace.results / "export" / "rtdetr.onnx")
    assert detector.size == (96, 160)
    assert detector.metadata.classes == CLASSES
