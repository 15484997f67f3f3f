"""What the ranks do about their data before the first step."""

from __future__ import annotations

import json
from typing import Any

from engine_support import TRAIN_IMAGES, VAL_IMAGES, Workspace, session_of, workspace  # noqa: F401

from rtdetr_slurm.engine.datasets.sources import open_sources, open_training_data, table_of
from rtdetr_slurm.vision.samples import open_image, training_boxes

# ruff: noqa: F811  (pytest fixtures are arguments of the name they are imported by)


FILES = {"image_dir": "images", "json_file": "annotations.json"}


def change(workspace: Workspace, split: str, **keys: Any) -> None:
    """Set keys of every second annotation."""
    path = workspace.data / split / "annotations.json"
    content = json.loads(path.read_text())
    for entry in content["annotations"][::2]:
        entry |= keys
    path.write_text(json.dumps(content))


def test_the_count_that_is_shown_is_the_one_that_training_uses(workspace: Workspace) -> None:
    change(workspace, "train", bbox=[75.25, 3, 20, 5.5], iscrowd="false")  # the image ends at 80
    path = workspace.data / "train" / "annotations.json"
    content = json.loads(path.read_text())
    for number, entry in enumerate(content["annotations"][::2]):
        entry["bbox"][0] += number % 7  # less and less of it is inside
    path.write_text(json.dumps(content))
    session = workspace.session("dataset.workers=1")
    sources = open_sources(session)
    table = open_training_data(session, sources["train"], seed=0, images=4, parts=1).table
    used = sum(len(training_boxes(table, image, 80, 80)[0]) for image in range(TRAIN_IMAGES))
    lines = [line["message"] for line in workspace.status()]
    (note,) = [line for line in lines if "are trained on; not:" in line]
    assert 0 < used < len(table.labels)
    assert f"{used} of {len(table.labels)} boxes are trained on; not: " in note


def test_an_image_of_another_size_is_bad(workspace: Workspace) -> None:
    session = workspace.session()
    data = open_training_data(session, open_sources(session)["train"], seed=0, images=4, parts=1)
    data.table.sizes[3] = 160, 80
    assert "is 80 x 80 pixels, but annotated as 160 x 80" in str(open_image(data.table, 3))
    assert "is 80 x 80" in str(data.loader.dataset[0, 3].bad[0])
    data.table.sizes[3] = 0, 0  # not given
    assert data.loader.dataset[0, 3].bad == ()


def test_ms_coco_ids_mean_the_same_in_every_set(workspace: Workspace) -> None:
    """Two training sources, whose image ids are the same, among them."""
    for split in ("train", "val"):
        path = workspace.data / split / "annotations.json"
        content = json.loads(path.read_text())
        for entry in (*content["categories"], *content["annotations"]):
            key = "id" if "name" in entry else "category_id"
            entry[key] = {1: 1, 2: 13, 3: 90}[entry[key]]
        path.write_text(json.dumps(content))
    given = [
        {key: str(workspace.data / split / name) for key, name in FILES.items()}
        for split in ("train", "val")
    ]
    change = ["dataset.remap_mscoco_category=true", "dataset.num_classes=80"]
    session = workspace.session(*change, f"dataset.train_data_sources={json.dumps(given)}")
    sources = open_sources(session)
    table = open_training_data(session, sources["train"], seed=0, images=4, parts=1).table
    scored = table_of(session, sources["val"][:1])
    assert table.classes == scored.classes == {0: "circle", 11: "square", 79: "triangle"}
    for image in range(VAL_IMAGES):
        second = TRAIN_IMAGES + image
        assert table.image_ids[image] == table.image_ids[second] == scored.image_ids[image]
        assert table.path(image) != table.path(second) == scored.path(image)
        labels = [one.labels[one.rows(n)].tolist() for one, n in ((table, second), (scored, image))]
        assert labels[0] == labels[1]
