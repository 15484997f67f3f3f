"""Labelling tools' own forms: CVAT, LabelMe, Label Studio."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from convert_support import boxes_of, changes, converted, write_image, write_text

from rtdetr_slurm.errors import RequestError

OUTLINE = "outline: the box around it"


def write_cvat(root: Path, *images: str) -> None:
    text = f"<annotations><version>1.1</version>{''.join(images)}</annotations>"
    write_text(root / "annotations.xml", text)


def cvat_image(name: str, *shapes: str, more: str = "") -> str:
    inside = "".join(shapes)
    return f'<image id="0" name="{name}" width="100" height="50" {more}>{inside}</image>'


def test_cvat_has_subsets_and_shapes_of_many_kinds(tmp_path: Path) -> None:
    root = tmp_path / "a"
    for name in ("x", "y"):
        write_image(root / "images" / f"{name}.jpg")
    write_cvat(
        root,
        cvat_image(
            "x.jpg",
            '<box label="cell" xtl="10" ytl="5" xbr="30" ybr="25"/>',
            '<polygon label="dog" points="10.0,5.0;30,5;30,25"/>',
            '<ellipse label="dog" cx="50" cy="25" rx="10" ry="5"/>',
            '<mask label="dog" left="1" top="2" width="3" height="4" rle="1"/>',
            '<box label="cell" xtl="40" ytl="20" xbr="60" ybr="30" rotation="90"/>',
            '<points label="cell" points="1,2"/>',
            more='subset="Train"',
        ),
        cvat_image("y.jpg", more='subset="Validation"'),
    )
    done, read = converted(root)
    assert done.form == "cvat"
    assert done.splits == {"train": (1, 5), "val": (1, 0)}
    assert [(name, box) for _, name, box in boxes_of(read["train"])] == [
        ("cell", [10, 5, 20, 20]),
        ("dog", [10, 5, 20, 20]),
        ("dog", [40, 20, 20, 10]),
        ("dog", [1, 2, 3, 4]),
        ("cell", [45, 15, 10, 20]),
    ]
    assert changes(done) == {OUTLINE: 3, "points, which is no region: left out": 1}


def test_cvat_says_what_it_cannot_use(tmp_path: Path) -> None:
    write_image(tmp_path / "a/x.jpg")
    write_cvat(tmp_path / "a", cvat_image("x.jpg", '<box label="cell" xtl="1"/>', "<polygon/>"))
    with pytest.raises(RequestError) as error:
        converted(tmp_path / "a")
    assert "a box that has no box" in str(error.value)
    assert "a polygon that has no label" in str(error.value)


def write_labelme(path: Path, *shapes: dict[str, Any], **more: Any) -> None:
    write_image(path.with_suffix(".jpg"))
    content = {"version": "5.0", "shapes": shapes, "imagePath": f"{path.stem}.jpg"} | more
    write_text(path, json.dumps(content))


def shape(kind: str, *points: tuple[float, float], label: str = "cell") -> dict[str, Any]:
    return {"label": label, "shape_type": kind, "points": points}


def test_labelme_has_a_file_beside_each_image(tmp_path: Path) -> None:
    root = tmp_path / "a"
    size = {"imageWidth": 100, "imageHeight": 50, "imageData": "AAAA"}
    write_labelme(
        root / "train/x.json",
        shape("rectangle", (30, 25), (10, 5)),
        shape("polygon", (10, 5), (30, 5), (30, 25), label="dog"),
        shape("circle", (50, 25), (53, 29)),
        shape("point", (1, 2)),
        **size,
    )
    write_labelme(root / "val/y.json", **(size | {"imagePath": "..\\data\\y.jpg"}))
    done, read = converted(root)
    assert done.form == "labelme"
    assert set(read) == {"train", "val"}
    assert [(name, box) for _, name, box in boxes_of(read["train"])] == [
        ("cell", [10, 5, 20, 20]),
        ("dog", [10, 5, 20, 20]),
        ("cell", [45, 20, 10, 10]),
    ]
    assert changes(done) == {
        OUTLINE: 2,
        "point, which is no region: left out": 1,
        "image of another path or name than annotated: taken": 1,
    }


def test_labelme_says_what_it_cannot_use(tmp_path: Path) -> None:
    root = tmp_path / "a"
    bad = [shape("rectangle", label=""), {"label": "cell", "points": [[1]]}, 3]
    write_labelme(root / "x.json", *bad)
    with pytest.raises(RequestError) as error:
        converted(root)
    assert "shape 1 of" in str(error.value)
    assert "shape 2 of" in str(error.value)
    assert "shape 3 of" in str(error.value)


def task(name: str, *results: dict[str, Any], **more: Any) -> dict[str, Any]:
    annotation = {"result": results} | more
    return {
        "id": 1,
        "data": {"image": f"/data/upload/1/0a1b2c3d-{name}"},
        "annotations": [annotation],
    }


def mark(kind: str, size: tuple[int, int] = (100, 50), **value: Any) -> dict[str, Any]:
    where = {"original_width": size[0], "original_height": size[1]}
    return {"type": kind, "value": {kind: ["cell"]} | value, **where}


def test_label_studio_has_percent_of_the_image(tmp_path: Path) -> None:
    root = tmp_path / "a"
    write_image(root / "images/x.jpg")
    write_image(root / "images/y.jpg")
    first = task(
        "x.jpg",
        mark("rectanglelabels", x=10, y=10, width=20, height=40, rotation=0),
        mark("polygonlabels", points=[[10, 10], [30, 10], [30, 50]]),
        mark("ellipselabels", x=50, y=50, radiusX=10, radiusY=10),
        mark("rectanglelabels", x=50, y=50, width=10, height=10, rotation=90),
        {"type": "choices", "value": {"choices": ["good"]}},
    )
    first["annotations"].insert(0, task("x.jpg", mark("rectanglelabels"))["annotations"][0])
    short = {
        "image": "y.jpg",
        "label": [mark("rectanglelabels", (50, 25), x=0, y=0, width=50, height=50)],
    }
    short["label"][0] |= short["label"][0].pop("value")
    write_text(root / "project.json", json.dumps([first, short]))
    done, read = converted(root)
    assert done.form == "label_studio"
    assert [(name, box) for name, _, box in boxes_of(read["train"])] == [
        ("x.jpg", [10, 5, 20, 20]),
        ("x.jpg", [40, 20, 20, 10]),
        ("x.jpg", [45, 25, 5, 10]),
        ("y.jpg", [0, 0, 50, 25]),
    ]
    assert changes(done) == {
        "task that was annotated more than once: the last one counts": 1,
        "image of another path or name than annotated: taken": 1,
        "outline, or turned box: the box around it": 3,
        "mark without a labelled region: left out": 1,
        "image of another size than annotated: its boxes are scaled": 1,
        "box that its image has twice: one is left out": 1,
    }


def test_label_studio_says_what_it_cannot_use(tmp_path: Path) -> None:
    root = tmp_path / "a"
    write_image(root / "images/x.jpg")
    content = [task("x.jpg", mark("rectanglelabels", x=1)), {"data": {"text": "no image"}}]
    write_text(root / "project.json", json.dumps(content))
    with pytest.raises(RequestError) as error:
        converted(root)
    assert "a mark of rectanglelabels without numbers" in str(error.value)
    assert "task 2 of" in str(error.value)


def test_what_makes_no_sense_is_refused_and_nothing_else_happens(tmp_path: Path) -> None:
    root = tmp_path / "a"
    write_image(root / "images/x.jpg")
    odd: list[Any] = [
        {"data": {"image": "x.jpg"}, "annotations": 3},
        {"data": {"image": "x.jpg"}, "annotations": [{"result": 1}]},
        task("x.jpg", {"value": 7, "rectanglelabels": True, "x": 1}, 4),
        {"data": 1},
    ]
    write_text(root / "project.json", json.dumps(odd))
    with pytest.raises(RequestError, match="task 4 of"):
        converted(root)
    (root / "project.json").unlink()
    write_cvat(root, cvat_image("x.jpg", '<box label="a" xtl="1" ytl="inf" xbr="2" ybr="9"/>'))
    with pytest.raises(RequestError, match="a box that has no box"):
        converted(root)
