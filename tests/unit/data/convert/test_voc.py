"""Pascal VOC's files."""

from __future__ import annotations

from pathlib import Path

import pytest
from convert_support import boxes_of, changes, converted, write_image, write_text

from rtdetr_slurm.errors import RequestError


def entry(name: str = "cell", box: tuple[float, ...] = (11, 6, 30, 25), more: str = "") -> str:
    sides = ("xmin", "ymin", "xmax", "ymax")
    edges = "".join(f"<{side}>{value}</{side}>" for side, value in zip(sides, box, strict=True))
    return f"<object><name>{name}</name>{more}<bndbox>{edges}</bndbox></object>"


def write_voc(
    root: Path, stem: str, *entries: str, filename: str | None = None, size: str = "100 50"
) -> None:
    width, height = size.split()
    write_image(root / "JPEGImages" / f"{stem}.jpg")
    write_text(
        root / "Annotations" / f"{stem}.xml",
        f"<annotation><filename>{filename or stem + '.jpg'}</filename><size><width>{width}</width>"
        f"<height>{height}</height></size>{''.join(entries)}</annotation>",
    )


def test_splits_are_those_of_the_lists_and_pixels_count_from_one(tmp_path: Path) -> None:
    root = tmp_path / "a"
    write_voc(root, "x", entry(), entry("dog", (1, 1, 100, 50)))
    write_voc(root, "y", entry("dog"))
    write_voc(root, "unlisted", entry("dog"))
    for name, lines in {"train": "x\n", "val": "y\n", "trainval": "x\ny\n"}.items():
        write_text(root / f"ImageSets/Main/{name}.txt", lines)
    done, read = converted(root)
    assert done.form == "voc"
    assert done.splits == {"train": (1, 2), "val": (1, 1)}
    # Of a split alone the other class would have another id.
    assert read["val"].categories == {0: "cell", 1: "dog"}
    assert boxes_of(read["train"]) == [
        ("x.jpg", "cell", [10, 5, 20, 20]),
        ("x.jpg", "dog", [0, 0, 100, 50]),
    ]
    assert changes(done) == {"box counted from pixel 1, as VOC does: from 0": 3}


def test_coordinates_that_begin_with_zero_stay(tmp_path: Path) -> None:
    write_voc(tmp_path / "a", "x", entry(box=(0, 5, 30, 25)))
    done, read = converted(tmp_path / "a")
    assert boxes_of(read["train"]) == [("x.jpg", "cell", [0, 5, 30, 20])]
    assert changes(done) == {}


def test_what_tools_get_wrong_is_mended_and_said(tmp_path: Path) -> None:
    root = tmp_path / "a"
    write_voc(root, "x", entry(box=(30, 25, 0, 5)), filename="C:\\data\\x.png", size="0 0")
    write_voc(root, "y", entry(more="<difficult>1</difficult>"), size="100 60")
    write_voc(root, "z")
    (root / "JPEGImages/z.jpg").unlink()
    done, read = converted(root)
    assert boxes_of(read["train"]) == [("x.jpg", "cell", [0, 5, 30, 20])]
    assert changes(done) == {
        "image of another path or name than annotated: taken": 1,
        "image without width or height: looked up": 1,
        "box whose sides are swapped: turned round": 1,
        "image of other proportions than annotated, so that its boxes are elsewhere: left out": 1,
        "image that is missing or cannot be read: left out": 1,
    }


def test_files_that_are_none_are_refused_all_at_once(tmp_path: Path) -> None:
    root = tmp_path / "a"
    write_voc(root, "x", "<object><name>cell</name></object>")
    bomb = '<!DOCTYPE a [<!ENTITY b "bbb"><!ENTITY c "&b;&b;&b;">]><annotation>&c;</annotation>'
    write_text(root / "Annotations/bomb.xml", bomb)
    write_text(root / "Annotations/cut.xml", "<annotation><object>")
    with pytest.raises(RequestError) as error:
        converted(root, form="voc")
    said = str(error.value)
    assert "bomb.xml: not XML as it should be: it has a document type" in said
    assert "cut.xml: not XML" in said
    assert "x.xml has no bndbox of four numbers" in said
