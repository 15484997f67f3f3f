"""Files that annotations name, and what is there in their place."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from rtdetr_slurm.data.image_files import missing_files, similar_file


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for name in ("a.jpg", "my image.jpg", "sub/000.jpg", "sub/deep/1.PNG", "u\u0308ber.jpg"):
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    return tmp_path


def test_missing_files(folder: Path) -> None:
    there = ["a.jpg", "sub/000.jpg", "./sub/../a.jpg", "sub/deep/1.PNG", f"{folder}/a.jpg"]
    assert missing_files(folder, there) == []
    os.mkfifo(folder / "pipe.jpg")
    (folder / "link.jpg").symlink_to("elsewhere")
    there.append("link.jpg")  # what it leads to may be seen by the job alone
    missing = ["b.jpg", "sub", "sub/a.jpg", "none/a.jpg", "a.jpg/b.jpg", "pipe.jpg"]
    assert missing_files(folder, [*there, *missing]) == missing


def test_a_folder_is_listed_once(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    listed: list[str] = []
    scandir = os.scandir
    monkeypatch.setattr(os, "scandir", lambda path: (listed.append(str(path)), scandir(path))[1])
    missing_files(folder, ["a.jpg", "sub/1.jpg", "b.jpg", "sub/2.jpg"] * 100)
    assert listed == [str(folder), str(folder / "sub")]


@pytest.mark.parametrize(
    ("name", "similar"),
    [
        ("sub\\000.jpg", "sub/000.jpg"),
        ("my%20image.jpg", "my image.jpg"),
        ("sub/deep/1.png", "sub/deep/1.PNG"),
        ("A.JPEG", "a.jpg"),
        ("train/a.jpg", "a.jpg"),
        ("C:\\data\\a.jpg", "a.jpg"),
        ("\u00fcber.jpg", "u\u0308ber.jpg"),
        ("other.jpg", None),
    ],
)
def test_similar_file(folder: Path, name: str, similar: str | None) -> None:
    assert similar_file(folder, name) == similar
