"""Writing files."""

from __future__ import annotations

import errno
import os
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from rtdetr_slurm.files import folder_beside, keep_all, keep_new, new_folder, write_atomic


def test_threads_that_write_leave_the_umask_as_it_is(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It can be read only by setting it, and two that do so at once would lose it."""
    umask = os.umask
    before = umask(0o027)

    def interrupted(mask: int) -> int:
        old = umask(mask)
        time.sleep(0.001)
        return old

    monkeypatch.setattr(os, "umask", interrupted)
    try:
        with ThreadPoolExecutor(4) as pool:
            list(pool.map(lambda n: write_atomic(tmp_path / str(n), "x"), range(20)))
        assert umask(0o027) == 0o027
        assert {path.stat().st_mode & 0o777 for path in tmp_path.iterdir()} == {0o640}
    finally:
        umask(before)


def test_a_complete_file_gets_a_name_that_nothing_has(tmp_path: Path) -> None:
    made, name = tmp_path / "made", tmp_path / "name"
    made.write_text("new")
    made.chmod(0o600)
    keep_new(made, name)
    assert (name.read_text(), made.exists()) == ("new", False)
    mask = os.umask(0)
    os.umask(mask)
    assert name.stat().st_mode & 0o777 == 0o666 & ~mask
    made.write_text("newer")
    with pytest.raises(FileExistsError):
        keep_new(made, name)
    assert (name.read_text(), made.read_text()) == ("new", "newer")


def test_all_files_get_their_names_or_none(tmp_path: Path) -> None:
    target = tmp_path / "new" / "name"

    def make() -> list[Path]:
        names = "first", "name"
        for name in names:
            (folder / name).write_text("new")
        return [folder / name for name in names]

    with folder_beside(target) as folder:
        keep_all(make(), target.parent)
        assert {path.read_text() for path in (target, target.with_name("first"))} == {"new"}
        target.write_text("another's")
        target.with_name("first").unlink()
        with pytest.raises(FileExistsError) as error:
            keep_all(make(), target.parent)
    assert error.value.filename2 == str(target)
    assert [*target.parent.iterdir()] == [target]
    assert target.read_text() == "another's"


def test_where_there_are_no_links(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:
        raise OSError(errno.EPERM, "Operation not permitted")

    monkeypatch.setattr(os, "link", refuse)
    made, name = tmp_path / "made", tmp_path / "name"
    made.write_text("new")
    keep_new(made, name)
    assert (name.read_text(), made.exists()) == ("new", False)
    made.write_text("newer")
    with pytest.raises(FileExistsError):
        keep_new(made, name)
    assert name.read_text() == "new"


def test_a_new_folder_is_there_whole_or_not_at_all(tmp_path: Path) -> None:
    path = tmp_path / "new"
    with new_folder(path) as folder:
        (folder / "a").write_text("1")
        assert not path.exists()
    assert [file.name for file in tmp_path.iterdir()] == ["new"]
    assert (path.stat().st_mode & 0o777, (path / "a").read_text()) == (0o777 & ~umask(), "1")
    with pytest.raises(FileExistsError), new_folder(path):
        pass

    def fill_and_fail() -> None:
        with new_folder(tmp_path / "other") as folder:
            (folder / "a").touch()
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        fill_and_fail()
    assert [file.name for file in tmp_path.iterdir()] == ["new"]


def umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask
