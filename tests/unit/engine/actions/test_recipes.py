"""Recipes other than RT-DETR's own, from the spec to what a step is given."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
from distill_support import BINDINGS, write_teacher
from engine_support import Workspace, stopping_at, workspace  # noqa: F401
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from rtdetr_slurm.engine.actions.distill import distill
from rtdetr_slurm.engine.actions.train import train
from rtdetr_slurm.engine.losses import Criterion
from rtdetr_slurm.engine.models import RTDETR
from rtdetr_slurm.engine.process.session import Session
from rtdetr_slurm.engine.process.stop import Interrupted
from rtdetr_slurm.engine.training import report
from rtdetr_slurm.engine.training.checkpoint import load_checkpoint
from rtdetr_slurm.engine.training.objective import DetectionObjective, detection_objective

# ruff: noqa: F811  (pytest fixtures are arguments of the name they are imported by)

SCALES = "dataset.augmentation.multi_scales=[96]"  # images are of 64 pixels


@pytest.fixture(autouse=True)
def _every_step_is_in_the_curves(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(report, "SCALAR_INTERVAL", 1)


class Given:
    """An objective that notes the size and the number of boxes of each batch."""

    def __init__(self) -> None:
        self.sizes: list[int] = []
        self.boxes: list[int] = []

    def __call__(
        self, session: Session, detector: RTDETR, criterion: Criterion, classes: Mapping[int, str]
    ) -> DetectionObjective:
        objective = detection_objective(session, detector, criterion, classes)
        objective.register_forward_pre_hook(self._note)
        return objective

    def _note(self, _: Any, given: tuple[Any, ...]) -> None:
        images, targets, _ = given
        self.sizes.append(images.shape[-1])
        self.boxes.append(sum(len(target["labels"]) for target in targets))


def curves(folder: Path) -> dict[str, list[float]]:
    events = EventAccumulator(str(folder)).Reload()
    return {tag: [e.value for e in events.Scalars(tag)] for tag in events.Tags()["scalars"]}


def test_rtdetrv2_warms_up_and_ends_plainly(workspace: Workspace) -> None:
    given = Given()
    overrides = ["engine.recipe=rtdetrv2", "train.optim.warmup_steps=0", SCALES]
    train(workspace.session(*overrides, "dataset.val_data_sources=null"), given)
    assert given.sizes == [96] * 3 + [64] * 3
    assert sum(given.boxes[3:]) == count_boxes(workspace)  # none is cut off
    rates = curves(workspace.results / "train")["train/lr"]
    assert rates == pytest.approx([rate * 1e-3 for rate in (1 / 3, 2 / 3, 1, 1, 1, 1)])


def count_boxes(workspace: Workspace) -> int:
    content = json.loads((workspace.data / "train" / "annotations.json").read_text())
    return len(content["annotations"])


def test_deim_resumes_in_a_dense_epoch(
    workspace: Workspace, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole, overrides = Given(), ["engine.recipe=deim", "dataset.val_data_sources=null", SCALES]
    folder = workspace.root / "whole"
    train(workspace.session(*overrides, f"train.results_dir={folder}"), whole)
    assert whole.sizes == [96] * 3 + [64] * 3
    assert sum(whole.boxes[3:]) == count_boxes(workspace)
    found = curves(folder)
    assert found["train/lr"][2:] == pytest.approx([1e-3] + [5e-4] * 3)
    assert "train/loss_mal_enc" in found
    assert not [tag for tag in found if "vfl" in tag]

    parts = Given()
    with pytest.raises(Interrupted):
        train(stopping_at(workspace.session(*overrides), 1), parts)
    monkeypatch.setenv("RTDETR_RESUME", "1")
    train(workspace.session(*overrides), parts)
    assert parts.boxes == whole.boxes
    ours, theirs = (
        load_checkpoint(one / "model_epoch_001.pth")["model"]
        for one in (workspace.results / "train", folder)
    )
    for name, weight in ours.items():
        torch.testing.assert_close(weight, theirs[name], rtol=0, atol=1e-6, msg=name)


def test_deim_with_a_teacher(workspace: Workspace) -> None:
    distill(
        workspace.session(
            f"distill.pretrained_teacher_model_path={write_teacher(workspace)}",
            f"distill.bindings={json.dumps(BINDINGS)}",
            "engine.recipe=deim",
            "dataset.val_data_sources=null",
            name="distill",
        )
    )
    found = curves(workspace.results / "distill")
    assert "train/loss_mal" in found
    assert [tag for tag in found if "distill" in tag]


def test_weights_say_which_images_an_epoch_has(workspace: Workspace) -> None:
    """Of two sources that are the same only the second is drawn from, each image of it twice."""
    source = (
        f"{{image_dir: {workspace.data}/train/images, "
        f"json_file: {workspace.data}/train/annotations.json}}"
    )
    given = Given()
    train(
        workspace.session(
            f"dataset.train_data_sources=[{source}, {source}]",
            "dataset.val_data_sources=null",
            "engine.recipe=rtdetrv2",
            "engine.sampling.source_weights=[0, 2]",
            "train.num_epochs=1",
            "train.checkpoint_interval=1",
        ),
        given,
    )
    assert len(given.boxes) == 6
    assert sum(given.boxes) == 2 * count_boxes(workspace)
