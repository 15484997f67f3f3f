"""What a run that continues another has from it, and what it may not say otherwise."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from spec_files import NEEDED, only, write

from rtdetr_slurm.model_check import InvalidInput
from rtdetr_slurm.spec import LoadedSpec, load_spec

MODEL = ["model.backbone=resnet_18", "model.num_queries=100", "model.num_select=80"]
CLASSES = ["dataset.num_classes=91", "dataset.eval_class_ids=[1,90]"]


@pytest.fixture(scope="module")
def parent(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """The resolved spec of a training."""
    path = write(tmp_path_factory.mktemp("parent"), "")
    pretrained = "model.pretrained_backbone_path=/w.pth"
    return load_spec(
        path, [*NEEDED["train"], *MODEL, *CLASSES, pretrained], "train"
    ).resolved()  # fmt: skip


def load(
    folder: Path, parent: dict[str, Any], text: str, *overrides: str, action: str
) -> LoadedSpec:
    named = [] if "job.parent=" in "".join(overrides) else ["job.parent=train-1"]
    return load_spec(
        write(folder, text), [*overrides, *named], action, parent_spec=lambda _: parent
    )  # fmt: skip


def without_model(action: str) -> list[str]:
    return [text for text in NEEDED[action] if not text.endswith(("=/c", "=/t"))]


def test_what_is_left_open_is_as_in_the_parent(tmp_path: Path, parent: dict[str, Any]) -> None:
    loaded = load(tmp_path, parent, "", *without_model("evaluate"), action="evaluate")
    model, dataset = loaded.experiment.model, loaded.experiment.dataset
    assert (model.backbone, model.num_queries, model.num_select) == ("resnet_18", 100, 80)
    assert (dataset.num_classes, dataset.eval_class_ids) == (91, [1, 90])
    assert model.pretrained_backbone_path == "", "only a training that goes on keeps its norms"
    assert only([note for note in loaded.notes if "continues" in note]) == (
        "taken over from train-1, which job.parent continues: model.backbone 'resnet_18', "
        "model.num_queries 100, model.num_select 80, dataset.num_classes 91, "
        "dataset.eval_class_ids [1, 90]"
    )
    # References see it, too.
    text = "model: {num_select: '${model.num_queries}'}\n"
    with pytest.raises(InvalidInput, match=r"model\.num_select: found 100; train-1, which job"):
        load(tmp_path, parent, text, *without_model("evaluate"), action="evaluate")


def test_a_contradiction_is_refused_where_it_stands(tmp_path: Path, parent: dict[str, Any]) -> None:
    text = "model:\n  num_queries: 300\ndataset:\n  num_classes: 91\n"
    with pytest.raises(InvalidInput) as error:
        load(tmp_path, parent, text, "dataset.eval_class_ids=null",
             *without_model("export"), action="export")  # fmt: skip
    assert str(error.value).replace(f"{tmp_path}/", "").splitlines() == [
        "spec.yaml:2:16: model.num_queries: found 300; train-1, which job.parent continues, has "
        "100; allowed: the same, or nothing, which takes it over",
        "override 'dataset.eval_class_ids=null': dataset.eval_class_ids: found null; train-1, "
        "which job.parent continues, has [1, 90]; allowed: the same, or nothing, which takes it "
        "over",
    ]


def test_a_training_that_goes_on_keeps_its_norms_as_they_were(
    tmp_path: Path, parent: dict[str, Any]
) -> None:
    loaded = load(tmp_path, parent, "", *NEEDED["train"], action="train")
    assert loaded.experiment.model.pretrained_backbone_path == "/w.pth"
    other = "model.pretrained_backbone_path=/elsewhere/w.pth"
    load(tmp_path, parent, "", *NEEDED["train"], other, action="train")
    with pytest.raises(InvalidInput, match="pretrained_model_path: found '/x'; train-1"):
        load(tmp_path, parent, "", *NEEDED["train"], "train.pretrained_model_path=/x",
             action="train")  # fmt: skip


def test_the_parent_of_a_distillation_is_the_teacher(
    tmp_path: Path, parent: dict[str, Any]
) -> None:
    loaded = load(tmp_path, parent, "", *without_model("distill"), action="distill")
    assert loaded.experiment.distill.teacher.backbone == "resnet_18"
    assert loaded.experiment.model.backbone == "resnet_50"
    assert loaded.experiment.dataset.num_classes == 91
    with pytest.raises(InvalidInput, match=r"teacher\.num_queries: found 20; train-1"):
        load(tmp_path, parent, "", *without_model("distill"), "distill.teacher.num_queries=20",
             "distill.teacher.num_select=20", action="distill")  # fmt: skip


def test_without_a_parent_nothing_is_asked(tmp_path: Path) -> None:
    def never(_: str) -> dict[str, Any]:
        raise AssertionError

    load_spec(write(tmp_path, ""), NEEDED["evaluate"], "evaluate", parent_spec=never)
    # What is given is not taken from the parent, whose model is another then.
    loaded = load(
        tmp_path, {"model": {"num_queries": 5}}, "", *NEEDED["evaluate"], action="evaluate"
    )
    assert loaded.experiment.model.num_queries == 300
