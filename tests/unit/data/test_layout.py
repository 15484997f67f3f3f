"""Where data sets have their splits."""

from __future__ import annotations

from pathlib import Path

import pytest
from coco_support import coco, written

from rtdetr_slurm.data.layout import annotation_files, find_splits
from rtdetr_slurm.errors import RequestError


def touched(folder: Path) -> None:
    for name in ("a.jpg", "b.jpg"):
        written(folder / name, "")


@pytest.mark.parametrize(
    ("json_file", "images"),
    [
        ("train/annotations.json", "train/images"),
        ("train/_annotations.coco.json", "train"),  # Roboflow
        ("annotations/instances_train2017.json", "train2017"),  # MS COCO
        ("annotations/instances_train.json", "images/train"),
        ("annotations/instances_default.json", "images"),  # CVAT
        ("result.json", "images"),  # Label Studio
        ("labels.json", "."),
    ],
)
def test_layouts(tmp_path: Path, json_file: str, images: str) -> None:
    written(tmp_path / json_file, coco())
    written(tmp_path / "notes.json", {"year": 2017})
    touched(tmp_path / images)
    found = find_splits(tmp_path)
    assert [*found] == ["train"]
    assert found["train"].annotations == tmp_path / json_file
    assert found["train"].json_file == str(tmp_path / json_file)
    assert found["train"].image_dir == str(tmp_path / images)


def test_each_split_has_its_own_images_though_their_names_are_the_same(tmp_path: Path) -> None:
    for split in ("train", "val"):
        written(tmp_path / f"annotations/instances_{split}2017.json", coco())
        touched(tmp_path / f"{split}2017")
    assert {name: Path(found.image_dir).name for name, found in find_splits(tmp_path).items()} == {
        "train": "train2017",
        "val": "val2017",
    }


@pytest.mark.parametrize("name", ["images.tar.gz", "images.zip", "images.tar.zst"])
def test_an_archive_of_images_is_taken_as_it_is(tmp_path: Path, name: str) -> None:
    written(tmp_path / "val/annotations.json", coco())
    written(tmp_path / "val" / name, "")
    assert find_splits(tmp_path)["val"].image_dir == str(tmp_path / "val" / name)


def test_images_that_are_nowhere_are_refused(tmp_path: Path) -> None:
    written(tmp_path / "train/annotations.json", coco())
    touched(tmp_path / "elsewhere/deep")
    with pytest.raises(RequestError, match="are in no folder"):
        find_splits(tmp_path)


def test_two_files_for_a_split_are_refused_and_each_alone_is_not(tmp_path: Path) -> None:
    paths = [written(tmp_path / f"{name}_train.json", coco()) for name in ("a", "b")]
    with pytest.raises(RequestError, match="are both of split train"):
        annotation_files(tmp_path)
    assert annotation_files(paths[1]) == {"train": paths[1]}
