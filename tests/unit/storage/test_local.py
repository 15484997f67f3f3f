"""Objects that are files: listed, read, and written to folders."""

from __future__ import annotations

from pathlib import Path

import pytest

from rtdetr_slurm.errors import RequestError
from rtdetr_slurm.plan.staging import Store
from rtdetr_slurm.storage.base import Changed
from rtdetr_slurm.storage.objects import head, listed, open_object
from rtdetr_slurm.storage.upload import put_file


def test_a_folder_takes_files(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"a")
    for uri in (str(tmp_path / "b/c"), (tmp_path / "b/d").as_uri()):
        put_file(tmp_path / "a", uri, Store())
    assert [path.read_bytes() for path in sorted((tmp_path / "b").iterdir())] == [b"a", b"a"]
    assert [one.name for one in listed(str(tmp_path), Store())] == ["a", "b/c", "b/d"]


def test_a_file_that_is_changed(tmp_path: Path) -> None:
    path = tmp_path / "a"
    path.write_bytes(b"abcdef")
    reader = open_object(head(path.as_uri(), Store()), Store())
    assert reader.read_range(2, 3) == b"cde"
    path.write_bytes(b"abc")
    with pytest.raises(Changed, match="has 3 bytes now"):
        reader.read_range(2, 3)
    reader.close()


@pytest.mark.parametrize("name", ["none", "."])
def test_no_file(name: str, tmp_path: Path) -> None:
    with pytest.raises(RequestError, match=r"does not exist|is no file"):
        head(f"{tmp_path}/{name}", Store())
