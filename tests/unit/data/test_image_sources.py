"""What dataset.infer_data_sources names."""

from __future__ import annotations

import os
import tarfile
from pathlib import Path

import pytest
from archive_support import pack
from coco_support import written

from rtdetr_slurm.data.check import check_folders
from rtdetr_slurm.data.coco import Source
from rtdetr_slurm.data.image_sources import check_apart, find_images
from rtdetr_slurm.errors import RequestError


def find(*entries: Path) -> list[Source]:
    sources, notes = find_images([*map(str, entries)])
    assert notes == []
    check_folders({"infer": [source.folder for source in sources]})
    return sources


def names(entry: Path) -> list[str]:
    (source,) = find(entry)
    return source.annotations.file_names


def refused(*entries: Path) -> str:
    with pytest.raises(RequestError) as error:
        find(*entries)
    return str(error.value)


def test_a_folder_is_searched_with_all_below_it(tmp_path: Path) -> None:
    for name in ("b.jpg", "a.PNG", "sub/deep/c.bmp", "sub/d.jpeg", "e.webp", "f.tiff"):
        written(tmp_path / name, "")
    for name in ("notes.txt", ".hidden.jpg", ".snapshot/b.jpg", "__MACOSX/b.jpg", "jpg"):
        written(tmp_path / name, "")
    assert names(tmp_path) == [
        "a.PNG", "b.jpg", "e.webp", "f.tiff", "sub/d.jpeg", "sub/deep/c.bmp",
    ]  # fmt: skip


def test_links_are_followed_and_may_go_round(tmp_path: Path) -> None:
    written(tmp_path / "elsewhere" / "x.jpg", "")
    folder = tmp_path / "images"
    written(folder / "a.jpg", "")
    (folder / "linked").symlink_to(tmp_path / "elsewhere")
    (folder / "round").symlink_to(folder)
    assert names(folder) == ["a.jpg", "linked/x.jpg"]
    (tmp_path / "alias").symlink_to(folder)
    assert names(tmp_path / "alias") == ["a.jpg", "linked/x.jpg"]


@pytest.mark.parametrize("kind", ["x.tar", "x.tar.gz", "x.tgz", "x.ZIP"])
def test_an_archive(tmp_path: Path, kind: str) -> None:
    path = pack(tmp_path / kind.lower()).rename(tmp_path / kind)
    (source,) = find(path)
    assert source.image_dir == path
    assert source.annotations.file_names == ["b.jpg", "cam 1/a.jpg"]


def test_links_in_an_archive_are_left_out_and_said(tmp_path: Path) -> None:
    (tmp_path / "link.jpg").symlink_to("/etc/passwd")
    path = pack(tmp_path / "x.tar")
    with tarfile.open(path, "a") as archive:
        archive.add(tmp_path / "link.jpg", "link.jpg")
    _, notes = find_images([str(path)])
    assert notes == [f"{path}: left out, for they are links or no files: image 'link.jpg'"]


def test_a_list_names_images_relative_to_itself(tmp_path: Path) -> None:
    written(tmp_path / "lists" / "sub" / "a b.jpg", "")
    written(tmp_path / "elsewhere" / "c.jpg", "")
    lines = ["sub/a b.jpg", "", f"{tmp_path}/lists/sub/../sub/a b.jpg", "../elsewhere/c.jpg"]
    path = written(tmp_path / "lists" / "of.txt", "\ufeff" + "\r\n".join(lines) + "\r\n")
    (source,) = find(path)
    assert source.image_dir == path.parent
    outside = f"{tmp_path}/elsewhere/c.jpg"
    assert source.annotations.file_names == ["sub/a b.jpg", "sub/a b.jpg", outside]


def test_what_is_missing_of_a_list_is_noted(tmp_path: Path) -> None:
    written(tmp_path / "a.jpg", "")
    path = written(tmp_path / "of.txt", "a.jpg\nb.jpg\n/no/c.jpg\n")
    _, notes = find_images([str(path)])
    assert notes == [f"{path}: not there, and left out: 2 images ('b.jpg', '/no/c.jpg')"]
    written(path, "b.jpg\n")
    assert "none of the images that it lists exists, such as 'b.jpg'" in refused(path)


def test_several_sources_keep_their_order(tmp_path: Path) -> None:
    for name in ("z/1.jpg", "a/1.jpg"):
        written(tmp_path / name, "")
    assert [s.image_dir.name for s in find(tmp_path / "z", tmp_path / "a")] == ["z", "a"]


def test_names_that_are_no_utf_8(tmp_path: Path) -> None:
    Path(os.fsdecode(os.fsencode(tmp_path) + b"/caf\xe9.jpg")).touch()
    assert names(tmp_path) == ["caf\udce9.jpg"]
    (tmp_path / "of.txt").write_bytes(b"caf\xe9.jpg\n")
    assert names(tmp_path / "of.txt") == ["caf\udce9.jpg"]


def test_results_are_apart_from_the_images(tmp_path: Path) -> None:
    (tmp_path / "alias").symlink_to(tmp_path / "images")
    given = [str(tmp_path / "images")]
    for results in ("images", "images/results", "alias/../images/results"):
        with pytest.raises(RequestError, match="would take its pictures for images"):
            check_apart(given, str(tmp_path / results))
    check_apart(given, str(tmp_path / "images-results"))
    check_apart(given, "")


def test_files_with_frames_are_named(tmp_path: Path) -> None:
    """TAO reads HDF5 files of a folder, too; here they would be missing without a word."""
    for name in ("a.jpg", "b.H5", "sub/c.hdf5", ".hidden.h5"):
        written(tmp_path / "mixed" / name, "")
    (source,), notes = find_images([str(tmp_path / "mixed")])
    assert source.annotations.file_names == ["a.jpg"]
    advice = "HDF5 files are not read here; write their frames to image files"
    assert notes == [f"{tmp_path}/mixed: left out, for {advice}: 2 files ('b.H5', 'sub/c.hdf5')"]
    assert refused(tmp_path / "mixed" / "sub").endswith(advice)
    (source,), notes = find_images([f"{tmp_path}/mixed/sub"], "tao")
    assert (source.annotations.file_names, notes) == (["c.hdf5"], [])
    assert refused(tmp_path / "mixed" / "b.H5").endswith(advice)


def test_what_is_none_of_these_is_refused(tmp_path: Path) -> None:
    assert "does not exist" in refused(tmp_path / "none")
    written(tmp_path / "images" / "notes.md", "")
    assert "holds no image; these count: names that end with .jpg" in refused(tmp_path / "images")
    for name in ("frames.h5", "a.jpg"):
        path = written(tmp_path / name, "")
        assert f"{name} (dataset.infer_data_sources, image_dir) is neither a fol" in refused(path)
    assert "lists no image: it is empty" in refused(written(tmp_path / "of.txt", "\n \n"))
    (tmp_path / "of.txt").write_bytes(b"\0\1")
    assert "is no list of images: it is not text" in refused(tmp_path / "of.txt")
    assert "holds no image" in refused(pack(tmp_path / "x.zip", {"a.txt": b""}))
    os.mkfifo(tmp_path / "pipe.txt")
    assert "is neither a folder" in refused(tmp_path / "pipe.txt")
