"""Annotation files: what is read, and what is said about wrong ones."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from rtdetr_slurm.data.coco import check_sources, read_annotations
from rtdetr_slurm.errors import RequestError
from rtdetr_slurm.spec import ExperimentConfig, load_spec


def coco(**changes: Any) -> dict[str, Any]:
    content = {
        "images": [{"id": 7, "file_name": "a.jpg"}, {"id": 9, "file_name": "b.jpg"}],
        "categories": [{"id": 1, "name": "cat"}, {"id": 3, "name": "dog"}],
        "annotations": [
            {"id": 1, "image_id": 9, "category_id": 3, "bbox": [1, 2, 10, 20], "area": 150},
            {"id": 2, "image_id": 7, "category_id": 1, "bbox": [0, 0, 4, 5], "iscrowd": 1},
        ],
    }
    return content | changes


def written(path: Path, content: Any) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(content if isinstance(content, str) else json.dumps(content))
    return path


def test_reads_columns(tmp_path: Path) -> None:
    read = read_annotations(written(tmp_path / "a.json", coco()))
    assert read.categories == {1: "cat", 3: "dog"}
    assert read.file_names == ["a.jpg", "b.jpg"]
    assert list(read.image_ids) == [7, 9]
    assert list(read.image_index) == [1, 0]
    assert list(read.category_ids) == [3, 1]
    assert list(read.boxes) == [1, 2, 10, 20, 0, 0, 4, 5]
    assert list(read.areas) == [150, 20]  # the second is width x height
    assert list(read.crowds) == [0, 1]
    assert (read.num_images, read.num_boxes) == (2, 2)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("{'images': }", "is not JSON: .* line 1 column 2"),
        ([], "is not a COCO detection file: its top level is a list"),
        ({"images": []}, "has no list 'annotations' .*found: \\['images'\\]"),
        (coco(categories=[]), "'categories' is empty"),
        (coco(categories=[{"id": 1}]), "categories\\[0\\] has no text 'name'"),
        (coco(categories=[{"id": "1", "name": "a"}]), "has no whole number 'id' \\(found '1'\\)"),
        (coco(categories=[{"id": -1, "name": "a"}]), "negative id -1"),
        (coco(categories=[{"id": 1, "name": "a"}] * 2), "category id 1 is given twice"),
        (coco(images=[{"id": 1}]), "images\\[0\\] \\(id 1\\) has no 'file_name'"),
        (coco(images=[{"id": 1, "file_name": "a"}] * 2), "image id 1 is given twice"),
        (coco(images=["a.jpg"]), "images\\[0\\] is not an object"),
        (coco(images=[{"id": 7, "file_name": "a.jpg"}]), "image id 9, which 'images' does not"),
        (coco(categories=[{"id": 1, "name": "cat"}]), "category id 3, which 'categories'"),
        (
            coco(annotations=[{"image_id": 7, "category_id": 1, "bbox": [1, 2, 3]}]),
            "annotations\\[0\\] has no 'bbox' of four numbers",
        ),
        (
            coco(annotations=[{"image_id": 7, "category_id": 1, "bbox": [1, 2, 3, None]}]),
            "holds None where a finite number",
        ),
        (
            '{"images": [{"id": 1, "file_name": "a"}], "categories": [{"id": 1, "name": "a"}],'
            '"annotations": [{"image_id": 1, "category_id": 1, "bbox": [1, 2, 3, NaN]}]}',
            "holds nan where a finite number",
        ),
    ],
)
def test_refuses_other_files(tmp_path: Path, content: Any, message: str) -> None:
    path = written(tmp_path / "wrong.json", content)
    with pytest.raises(RequestError, match=message) as caught:
        read_annotations(path)
    assert str(path) in str(caught.value)


def test_refuses_missing_and_binary_files(tmp_path: Path) -> None:
    with pytest.raises(RequestError, match="does not exist"):
        read_annotations(tmp_path / "none.json")
    (tmp_path / "binary.json").write_bytes(b"\xff\xd8\xff\xe0\x00")
    with pytest.raises(RequestError, match="it is not UTF-8 text"):
        read_annotations(tmp_path / "binary.json")
    with pytest.raises(RequestError, match="cannot be read: Is a directory"):
        read_annotations(tmp_path)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A training and a validation source of the same content."""
    for split in ("train", "val"):
        written(tmp_path / split / "annotations.json", coco())
        for name in ("a.jpg", "b.jpg"):
            written(tmp_path / split / name, "")
    return tmp_path


def experiment(folder: Path, *overrides: str, action: str = "train") -> ExperimentConfig:
    def source(split: str) -> dict[str, str]:
        return {
            "image_dir": str(folder / split),
            "json_file": str(folder / split / "annotations.json"),
        }

    spec = {
        "results_dir": str(folder / "results"),
        "dataset": {
            "train_data_sources": [source("train")],
            "val_data_sources": source("val"),
            "test_data_sources": source("val"),
            "num_classes": 4,
        },
        "model": {"num_queries": 10, "num_select": 10},
        "evaluate": {"checkpoint": "model.pth"},
    }
    path = written(folder / "spec.yaml", spec)
    return load_spec(path, overrides, action=action).experiment


@pytest.mark.parametrize("action", ["train", "evaluate"])
def test_good_sources_pass(folder: Path, action: str) -> None:
    check_sources(experiment(folder, action=action), action)


@pytest.mark.parametrize(("action", "split"), [("train", "train"), ("evaluate", "val")])
def test_missing_folder(folder: Path, action: str, split: str) -> None:
    (folder / split).rename(folder / "elsewhere")
    with pytest.raises(RequestError, match=f"image folder .*/{split} .*does not exist"):
        check_sources(experiment(folder, action=action), action)


def test_folder_without_the_images(folder: Path) -> None:
    (folder / "train" / "a.jpg").unlink()
    with pytest.raises(RequestError, match=r"has no file 'a.jpg', the first that .* names"):
        check_sources(experiment(folder), "train")


def test_num_classes_too_small(folder: Path) -> None:
    with pytest.raises(RequestError) as caught:
        check_sources(experiment(folder, "dataset.num_classes=3"), "train")
    message = str(caught.value)
    assert "category id 3 ('dog'), but dataset.num_classes is 3" in message
    assert "set dataset.num_classes to 4" in message
    assert "dataset.eval_class_ids to [1, 3]" in message


def test_num_classes_of_a_category_without_boxes(folder: Path) -> None:
    """What counts is the class list: validation may have boxes where training has none."""
    content = coco()
    content["categories"].append({"id": 90, "name": "toothbrush"})
    written(folder / "val" / "annotations.json", content)
    with pytest.raises(RequestError, match=r"set dataset.num_classes to 91"):
        check_sources(experiment(folder), "train")


def test_empty_training_set(folder: Path) -> None:
    path = written(folder / "train" / "annotations.json", coco(images=[], annotations=[]))
    with pytest.raises(RequestError, match="the training set is empty") as caught:
        check_sources(experiment(folder), "train")
    assert str(path) in str(caught.value)
    written(path, coco(annotations=[]))
    with pytest.raises(RequestError, match="the training set has no boxes"):
        check_sources(experiment(folder), "train")


def test_empty_validation_set(folder: Path) -> None:
    written(folder / "val" / "annotations.json", coco(images=[], annotations=[]))
    with pytest.raises(RequestError, match="names no images: nothing to score"):
        check_sources(experiment(folder), "train")


def test_same_id_with_two_names(folder: Path) -> None:
    content = coco(categories=[{"id": 1, "name": "dog"}, {"id": 3, "name": "cat"}])
    written(folder / "val" / "annotations.json", content)
    with pytest.raises(RequestError, match=r"category id 1 is 'cat' in .* and 'dog' in"):
        check_sources(experiment(folder), "train")


def test_unknown_eval_class_ids(folder: Path) -> None:
    with pytest.raises(RequestError, match=r"eval_class_ids holds \[2\].*1 \(cat\), 3 \(dog\)"):
        check_sources(experiment(folder, "dataset.eval_class_ids=[1, 2]"), "train")
