"""Where in an unpacked archive the names of annotations begin."""

from __future__ import annotations

from pathlib import Path

import pytest
from coco_support import written

from rtdetr_slurm.data.roots import image_root
from rtdetr_slurm.errors import RequestError


def unpacked(folder: Path, *names: str) -> Path:
    """What an archive images.tar.gz of these entries becomes."""
    for name in names:
        written(folder / "images" / name, "")
    return folder


@pytest.mark.parametrize(
    ("entries", "names", "root"),
    [
        (["a.jpg", "b.jpg"], ["a.jpg", "b.jpg"], "images"),
        (["a.jpg", "b.jpg"], ["images/a.jpg", "images/b.jpg"], "."),
        (["images/a.jpg", "images/b.jpg"], ["images/a.jpg", "images/b.jpg"], "images"),
        (["images/a.jpg", "images/b.jpg"], ["a.jpg", "b.jpg"], "images/images"),
        (["train2017/a.jpg", "._train2017"], ["a.jpg"], "images/train2017"),
        (["train2017/a.jpg"], ["train2017/a.jpg"], "images"),
        (["x/a.jpg", "y/b.jpg"], ["x/a.jpg", "y/b.jpg"], "images"),
        (["x/a.jpg", "y/b.jpg"], ["images/x/a.jpg"], "."),
        (["images/a.jpg"], ["a.jpg", "missing.jpg"], "images/images"),
        (["a.jpg"], [], "images"),
    ],
)
def test_names_with_and_without_the_top_folder(
    tmp_path: Path, entries: list[str], names: list[str], root: str
) -> None:
    assert image_root(unpacked(tmp_path, *entries), names, "images") == tmp_path / root


def test_two_ways_to_read_a_name_are_shown(tmp_path: Path) -> None:
    content = unpacked(tmp_path, "images/a.jpg", "images/images/a.jpg", "images/b.jpg")
    with pytest.raises(RequestError, match="more than one way") as caught:
        image_root(content, ["images/a.jpg", "images/b.jpg"], "images")
    assert "images/images/a.jpg (2 of 2 names are there) and" in str(caught.value)
    assert "images/images/images/a.jpg (1 of 2 names are there)" in str(caught.value)


def test_names_of_two_kinds_are_no_root(tmp_path: Path) -> None:
    with pytest.raises(RequestError, match=r"images/a\.jpg \(1 of 2 .* images/b\.jpg \(1 of 2"):
        image_root(unpacked(tmp_path, "a.jpg", "b.jpg"), ["a.jpg", "images/b.jpg"], "images")


def test_names_that_are_nowhere(tmp_path: Path) -> None:
    content = unpacked(tmp_path, "train/a.png", "train/b.png")
    with pytest.raises(RequestError) as caught:
        image_root(content, ["a.jpg", "b.jpg"], "images")
    said = str(caught.value)
    assert said.startswith("none of the 2 image files that the annotations name is in the archive")
    assert "such as 'a.jpg'; there is 'a.png'; at its top there is 'train'" in said


@pytest.mark.parametrize("name", ["/etc/passwd", "../a.jpg", "x/../../a.jpg"])
def test_names_that_lead_out(tmp_path: Path, name: str) -> None:
    with pytest.raises(RequestError, match="leads out of the archive"):
        image_root(unpacked(tmp_path, "a.jpg"), [name], "images")
