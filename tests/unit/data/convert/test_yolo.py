"""YOLO's files."""

from __future__ import annotations

from pathlib import Path

import pytest
from convert_support import SIZE, boxes_of, changes, converted, write_image, write_text

from rtdetr_slurm.errors import RequestError


def write_yolo(root: Path, *, config: str | None = "names: [cell, platelet]\n") -> None:
    """images/train and images/val with an image each, and their labels."""
    for split in ("train", "val"):
        write_image(root / "images" / split / f"{split}.jpg")
        write_text(root / "labels" / split / f"{split}.txt", "1 0.5 0.5 0.2 0.4\n")
    if config is not None:
        text = f"path: .\ntrain: images/train\nval: images/val\n{config}"
        write_text(root / "data.yaml", text)


def test_shares_become_pixels_and_ids_stay(tmp_path: Path) -> None:
    write_yolo(tmp_path / "a")
    done, read = converted(tmp_path / "a")
    assert done.form == "yolo"
    assert done.splits == {"train": (1, 1), "val": (1, 1)}
    assert read["train"].categories == {0: "cell", 1: "platelet"}
    assert boxes_of(read["train"]) == [("train.jpg", "platelet", [40, 15, 20, 20])]
    assert (done.folder / "label_map.txt").read_text() == "cell\nplatelet\n"
    assert changes(done) == {}


def test_shares_are_of_the_upright_image(tmp_path: Path) -> None:
    write_yolo(tmp_path / "a")
    exif = b"Exif\0\0MM\0*\0\0\0\x08\0\x01\x01\x12\0\x03\0\0\0\x01\0\x06\0\0\0\0\0\0"
    write_image(tmp_path / "a/images/train/train.jpg", exif=exif)
    _, read = converted(tmp_path / "a")
    assert (read["train"].widths[0], read["train"].heights[0]) == SIZE[::-1]
    assert boxes_of(read["train"])[0][2] == [20, 30, 10, 40]


@pytest.mark.parametrize("where", ["../train/images", "train/images"])
def test_roboflow_has_its_splits_outside_and_labels_beside_images(
    tmp_path: Path, where: str
) -> None:
    root = tmp_path / "a"
    write_image(root / "train/images/x.png")
    write_text(root / "train/labels/x.txt", "0 0.5 0.5 1 1\n")
    write_text(root / "data.yaml", f"train: {where}\nnc: 1\nnames: {{0: cell}}\n")
    _, read = converted(root)
    assert boxes_of(read["train"]) == [("x.png", "cell", [0, 0, 100, 50])]


def test_darknet_has_labels_beside_images_and_lists_of_images(tmp_path: Path) -> None:
    root = tmp_path / "a"
    for name in ("x", "y"):
        write_image(root / "obj" / f"{name}.jpg")
        write_text(root / "obj" / f"{name}.txt", "0 0.5 0.5 0.5 0.5\n")
    write_text(root / "train.txt", "obj/x.jpg\n")
    write_text(root / "data.yaml", "train: train.txt\nnames: [cell]\n")
    _, read = converted(root)
    assert [*read["train"].file_names] == ["x.jpg"]


def test_without_a_yaml_file_folders_and_name_lists_say_what_is_what(tmp_path: Path) -> None:
    write_yolo(tmp_path / "a", config=None)
    write_text(tmp_path / "a/classes.txt", "cell\nplatelet\n")
    done, read = converted(tmp_path / "a")
    assert set(read) == {"train", "val"}
    assert boxes_of(read["val"])[0][1] == "platelet"
    (tmp_path / "a/classes.txt").unlink()
    (tmp_path / "b").mkdir()
    (tmp_path / "a").rename(tmp_path / "b/a")
    done, read = converted(tmp_path / "b/a")
    assert boxes_of(read["val"])[0][1] == "class_1"
    assert read["val"].categories == {1: "class_1"}
    assert changes(done) == {"box of a class that nothing names: named by its number": 2}


def test_outlines_confidences_overhang_and_repeats_are_made_boxes(tmp_path: Path) -> None:
    root = tmp_path / "a"
    write_yolo(root)
    lines = [
        "0 0.1 0.2 0.5 0.2 0.5 0.6",  # a triangle
        "0 0.5 0.5 0.2 0.4 0.9",  # of a detector
        "1 0.0 0.5 0.2 0.4",  # half of it outside
        "1 0.0 0.5 0.2 0.4",
        "1 0.5 0.5 0 0.4",
    ]
    write_text(root / "labels/train/train.txt", "\n".join(lines))
    write_image(root / "images/train/empty.jpg")
    done, read = converted(root)
    found = [(name, box) for _, name, box in boxes_of(read["train"])]
    assert found == [
        ("cell", [10, 10, 40, 20]),
        ("cell", [40, 15, 20, 20]),
        ("platelet", [0, 15, 10, 20]),
    ]
    assert changes(done) == {
        "image without a file of labels: it has no objects": 1,
        "outline (segmentation or turned box): the box around it": 1,
        "label with a confidence, as of a detector: left out of it": 1,
        "box that reaches out of its image: cut": 2,
        "box that its image has twice: one is left out": 1,
        "box without width or height in its image: left out": 1,
    }


def test_what_nothing_can_be_made_of_is_said_at_once_and_nothing_is_written(
    tmp_path: Path,
) -> None:
    root = tmp_path / "a"
    write_yolo(root)
    lines = ["7 0.5 0.5 0.2 0.4", "0 40 15 20 20", "cell 0.5 0.5 0.2 0.4", "0 0.5 0.5 0.1"]
    write_text(root / "labels/train/train.txt", "\n".join(lines))
    with pytest.raises(RequestError) as error:
        converted(root)
    said = str(error.value)
    assert "train.txt:1: class 7, and the classes are 0..1" in said
    assert "train.txt:2: not shares" in said
    assert "train.txt:3: not a class index" in said
    assert "train.txt:4: 4 numbers are neither a box nor an outline" in said
    assert [path.name for path in tmp_path.iterdir()] == ["a"]


def test_a_split_without_any_label_is_refused(tmp_path: Path) -> None:
    root = tmp_path / "a"
    write_yolo(root)
    (root / "labels/val/val.txt").unlink()
    with pytest.raises(RequestError, match="no image of split val has a file of labels"):
        converted(root)
