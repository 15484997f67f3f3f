"""Exports in COCO's form, as labelling tools write it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from convert_support import boxes_of, changes, converted, write_image, write_text

from rtdetr_slurm.data.convert.outlines import box_around
from rtdetr_slurm.errors import RequestError


def image(number: Any = 1, name: str = "x.jpg", **more: Any) -> dict[str, Any]:
    return {"id": number, "file_name": name, "width": 100, "height": 50} | more


def box(number: Any = 1, **more: Any) -> dict[str, Any]:
    plain = {"id": 1, "image_id": number, "category_id": 1, "bbox": [10, 5, 20, 20]}
    return plain | {"area": 400, "iscrowd": 0} | more


def write_export(path: Path, images: list[Any], annotations: list[Any], **more: Any) -> None:
    content = {"images": images, "annotations": annotations}
    content |= {"categories": [{"id": 1, "name": "cell"}]} | more
    write_text(path, json.dumps(content))
    for entry in images:
        write_image(path.parent / "images" / entry["file_name"].replace("\\", "/").split("/")[-1])


def test_what_is_as_it_should_be_stays(tmp_path: Path) -> None:
    write_export(tmp_path / "a/instances.json", [image(7)], [box(7, area=123.5)])
    done, read = converted(tmp_path / "a")
    assert done.form == "coco"
    assert [*read["train"].image_ids] == [7]
    assert read["train"].categories == {1: "cell"}
    assert boxes_of(read["train"]) == [("x.jpg", "cell", [10, 5, 20, 20])]
    assert [*read["train"].areas] == [123.5]
    assert changes(done) == {}


def test_ids_may_be_text_or_have_a_fraction(tmp_path: Path) -> None:
    annotations = [box("1.0", category_id="1"), box(1, category_id=1.0)]
    write_export(tmp_path / "a/x.json", [image(1.0)], annotations)
    done, read = converted(tmp_path / "a")
    assert read["train"].num_boxes == 1
    assert changes(done) == {
        "entry with an id as text or with a fraction: a whole number": 4,
        "box that its image has twice: one is left out": 1,
    }


def test_ids_that_are_names_are_numbered(tmp_path: Path) -> None:
    write_export(
        tmp_path / "a/x.json",
        [image("b3f-1"), image("b3f-2", "y.jpg")],
        [box("b3f-2", category_id="cell")],
        categories=[],
    )
    done, read = converted(tmp_path / "a")
    assert [*read["train"].image_ids] == [1, 2]
    assert boxes_of(read["train"]) == [("y.jpg", "cell", [10, 5, 20, 20])]
    assert changes(done) == {
        "class that 'categories' does not have: named by its id": 1,
        "class whose id is text: numbered": 1,
        "image whose id is text: numbered": 2,
    }


def test_missing_fields_and_segmentations_alone(tmp_path: Path) -> None:
    plain = {"image_id": 1, "category_id": 1}
    annotations = [
        plain | {"segmentation": [[10, 5, 30, 5, 30, 25]]},
        plain | {"segmentation": {"size": [50, 100], "counts": [0, 50, 50, 10, 4890]}},
        plain | {"segmentation": [], "iscrowd": 0, "area": 1},
        box(1, iscrowd="perhaps", bbox=["1", 2, 3, 4.0]),
    ]
    write_export(tmp_path / "a/x.json", [image(width=None)], annotations)
    done, read = converted(tmp_path / "a")
    assert [found for *_, found in boxes_of(read["train"])] == [
        [10, 5, 20, 20],
        [0, 0, 3, 50],
        [1, 2, 3, 4],
    ]
    assert [*read["train"].crowds] == [0, 0, 0]
    assert changes(done) == {
        "annotation without a box: the one around its segmentation": 2,
        "annotation without a box: left out": 1,
        "annotation without iscrowd: 0": 2,
        "annotation without area: that of its box": 2,
        "annotation whose iscrowd is neither 0 nor 1: 0": 1,
        "image without width or height: looked up": 1,
    }


@pytest.mark.parametrize(
    "name",
    ["C:\\data\\set 1\\x.jpg", "/data/upload/1/0a1b2c3d-x.jpg", "http://host/a%20b/x.jpg", "X.JPG"],
)
def test_paths_of_other_machines(tmp_path: Path, name: str) -> None:
    write_export(tmp_path / "a/x.json", [image(name=name)], [box()])
    for path in (tmp_path / "a/images").iterdir():
        path.rename(path.with_name("x.jpg"))
    done, read = converted(tmp_path / "a")
    assert [*read["train"].file_names] == ["x.jpg"]
    assert changes(done) == {"image of another path or name than annotated: taken": 1}


@pytest.mark.parametrize(
    ("boxes", "what"),
    [
        ([[0.1, 0.1, 0.2, 0.4]], "box in shares of the image: in pixels"),
        ([[60, 5, 90, 25], [50, 5, 80, 25]], "box of two corners: of corner, width and height"),
    ],
)
def test_boxes_of_another_form(tmp_path: Path, boxes: list[list[float]], what: str) -> None:
    annotations = [box(bbox=numbers) for numbers in boxes]
    write_export(tmp_path / "a/x.json", [image()], annotations)
    done, read = converted(tmp_path / "a")
    right = [[10, 5, 20, 20]] if len(boxes) == 1 else [[60, 5, 30, 20], [50, 5, 30, 20]]
    assert [found for *_, found in boxes_of(read["train"])] == right
    assert changes(done)[what] == len(boxes)


def test_sizes_that_do_not_agree(tmp_path: Path) -> None:
    """Boxes of a smaller picture are scaled; those of a turned one are nowhere to be put."""
    images = [image(1, width=50, height=25), image(2, "y.jpg", width=50, height=100)]
    write_export(tmp_path / "a/x.json", images, [box(1, bbox=[5, 2.5, 10, 10]), box(2)])
    done, read = converted(tmp_path / "a")
    assert boxes_of(read["train"]) == [("x.jpg", "cell", [10, 5, 20, 20])]
    assert [*changes(done).values()] == [1, 1]


def test_splits_have_one_numbering(tmp_path: Path) -> None:
    """Each file of Roboflow's has its own folder, and some tools number classes in each anew."""
    root = tmp_path / "a"
    for split, name in (("train", "cell"), ("valid", "dog")):
        path = root / split / "_annotations.coco.json"
        write_export(path, [image()], [box()], categories=[{"id": 1, "name": name}])
    done, read = converted(root)
    assert read["train"].categories == read["val"].categories == {0: "cell", 1: "dog"}
    assert boxes_of(read["val"])[0][1] == "dog"
    assert len({change.what for change in done.changes}) == 1


def test_ids_too_large_for_class_indices_are_numbered_anew(tmp_path: Path) -> None:
    categories = [{"id": 9_971_840, "name": "cell"}, {"id": 9_971_841, "name": "cell"}]
    annotations = [box(category_id=9_971_841)]
    write_export(tmp_path / "a/x.json", [image()], annotations, categories=categories)
    _, read = converted(tmp_path / "a")
    assert read["train"].categories == {0: "cell"}
    assert boxes_of(read["train"])[0][1] == "cell"


def test_of_two_classes_of_a_name_the_one_with_boxes_gives_the_id(tmp_path: Path) -> None:
    categories = [{"id": 0, "name": "cell"}, {"id": 1, "name": "cell"}]
    write_export(tmp_path / "a/x.json", [image()], [box()], categories=categories)
    done, read = converted(tmp_path / "a")
    assert read["train"].categories == {1: "cell"}
    assert (done.folder / "label_map.txt").read_text() == "background\ncell\n"


def test_crowds_stay_unless_all_are(tmp_path: Path) -> None:
    write_export(tmp_path / "a/x.json", [image()], [box(iscrowd=1), box(bbox=[1, 1, 5, 5])])
    assert [*converted(tmp_path / "a")[1]["train"].crowds] == [1, 0]
    write_export(tmp_path / "b/x.json", [image()], [box(iscrowd=1)])
    assert [*converted(tmp_path / "b")[1]["train"].crowds] == [0]


def test_what_nothing_can_be_made_of_is_said_at_once(tmp_path: Path) -> None:
    root = tmp_path / "a"
    write_export(root / "x.json", [image()], [box(None), 3, box(category_id=None)])
    write_image(root / "other/x.jpg")
    with pytest.raises(RequestError) as error:
        converted(root)
    said = str(error.value)
    assert "annotations[0]" in said
    assert "has no image_id" in said
    assert "annotations[1]" in said
    assert "has no category_id" in said
    assert "'x.jpg' may be" in said


def test_two_files_for_a_split_are_refused(tmp_path: Path) -> None:
    for name in ("instances_val2017.json", "person_keypoints_val2017.json"):
        write_export(tmp_path / "a" / name, [image()], [box()])
    with pytest.raises(RequestError, match="are both of split val"):
        converted(tmp_path / "a")
    (tmp_path / "b").mkdir()
    file = tmp_path / "a/instances_val2017.json"
    assert [*converted(file)[0].splits] == ["val"]


def test_run_lengths_as_text_are_those_of_pycocotools() -> None:
    import numpy as np
    from pycocotools import mask

    rng = np.random.default_rng(0)
    for _ in range(50):
        picture = np.zeros((37, 53), np.uint8)
        y, x = rng.integers(0, (30, 45))
        picture[y : y + rng.integers(1, 9), x : x + rng.integers(1, 9)] = 1
        encoded = mask.encode(np.asfortranarray(picture))
        found = box_around({"size": encoded["size"], "counts": encoded["counts"].decode()})
        assert found == tuple(mask.toBbox(encoded))
