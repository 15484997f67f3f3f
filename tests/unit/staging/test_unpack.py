"""What is in an archive is somebody else's: what leads out of it, links, devices, bombs."""

from __future__ import annotations

import gzip
import io
import os
import stat
import tarfile
import zipfile
from pathlib import Path

import pytest
from archives import IMAGES, packed, tar_of, zip_of

from rtdetr_slurm.errors import UserError
from rtdetr_slurm.plan.staging import StagedObject, Store
from rtdetr_slurm.staging import landing, unpack
from rtdetr_slurm.staging.entries import all_keys
from rtdetr_slurm.staging.fetch import fetch
from rtdetr_slurm.staging.landing import BadArchive


def entry(
    name: str, kind: bytes = tarfile.REGTYPE, link: str = "", size: int = 0
) -> tarfile.TarInfo:
    found = tarfile.TarInfo(name)
    found.type, found.linkname, found.size = kind, link, size
    return found


def unpacked(tmp_path: Path, content: bytes, name: str = "images.tar") -> dict[str, bytes]:
    path = tmp_path / name
    path.write_bytes(content)
    found = fetch(StagedObject(str(path), "archive"), tmp_path / "cache", Store(), tell=print).path
    top = found / "images"
    return {
        one.relative_to(top).as_posix(): one.read_bytes() for one in top.rglob("*") if one.is_file()
    }


def refused(tmp_path: Path, content: bytes, name: str = "images.tar") -> str:
    """The message; nothing of the archive is left, and nothing is outside the cache."""
    before = {*tmp_path.iterdir()} | {tmp_path / name, tmp_path / "cache"}
    with pytest.raises(BadArchive) as error:
        unpacked(tmp_path, content, name)
    assert {*tmp_path.iterdir()} <= before
    [key] = all_keys(tmp_path / "cache")
    assert [path.name for path in (tmp_path / "cache" / key).rglob("*")] == ["claims", "1"]
    return str(error.value)


def zip_with(name: str, data: bytes = b"", mode: int = 0) -> bytes:
    content = io.BytesIO()
    with zipfile.ZipFile(content, "w") as archive:
        for one, image in IMAGES.items():
            archive.writestr(one, image)
        info = zipfile.ZipInfo(name)
        info.external_attr = mode << 16
        archive.writestr(info, data)
    return content.getvalue()


@pytest.mark.parametrize("name", ["../x.jpg", "/etc/x.jpg", "images/../../x.jpg", ".."])
def test_what_leads_out_is_refused(name: str, tmp_path: Path) -> None:
    assert "leads out of it" in refused(tmp_path, tar_of(IMAGES, entry(name)))


@pytest.mark.parametrize("name", ["../x.jpg", "/etc/x.jpg", "..\\x.jpg"])
def test_what_leads_out_of_a_zip_is_refused(name: str, tmp_path: Path) -> None:
    assert "leads out of it" in refused(tmp_path, zip_with(name), "images.zip")


@pytest.mark.parametrize("kind", [tarfile.CHRTYPE, tarfile.BLKTYPE, tarfile.FIFOTYPE])
def test_devices_are_refused(kind: bytes, tmp_path: Path) -> None:
    assert "'dev' in it is a device" in refused(tmp_path, tar_of(IMAGES, entry("dev", kind)))


def test_devices_in_a_zip_are_refused(tmp_path: Path) -> None:
    content = zip_with("dev", mode=stat.S_IFIFO | 0o666)
    assert "is a device" in refused(tmp_path, content, "images.zip")


@pytest.mark.parametrize(
    ("link", "kind"),
    [
        ("../x", tarfile.SYMTYPE),
        ("/etc/passwd", tarfile.SYMTYPE),
        ("/etc/passwd", tarfile.LNKTYPE),
        ("../../etc/passwd", tarfile.LNKTYPE),
    ],
)
def test_links_out_are_refused(link: str, kind: bytes, tmp_path: Path) -> None:
    assert "out of it" in refused(tmp_path, tar_of(IMAGES, entry("link", kind, link)))


def test_a_link_out_in_a_zip_is_refused(tmp_path: Path) -> None:
    content = zip_with("link", b"/etc/passwd", stat.S_IFLNK | 0o777)
    assert "out of it" in refused(tmp_path, content, "images.zip")


def test_nothing_is_written_through_a_link(tmp_path: Path) -> None:
    link = entry("images/way", tarfile.SYMTYPE, "../other")
    message = refused(tmp_path, tar_of(IMAGES, link, entry("images/way/x.jpg", size=3)))
    assert "is a link to 'other'" in message


def test_links_within_are_files(tmp_path: Path) -> None:
    links = (
        entry("same.jpg", tarfile.LNKTYPE, "images/003.jpg"),
        entry("images/soft.jpg", tarfile.SYMTYPE, "./004.jpg"),
    )
    found = unpacked(tmp_path, gzip.compress(tar_of(IMAGES, *links)), "images.tgz")
    assert found["same.jpg"] == IMAGES["images/003.jpg"]
    assert found["images/soft.jpg"] == IMAGES["images/004.jpg"]


def test_a_link_in_a_zip_is_a_file(tmp_path: Path) -> None:
    content = zip_with("a/soft.jpg", b"../images/002.jpg", stat.S_IFLNK | 0o777)
    assert unpacked(tmp_path, content, "images.zip")["a/soft.jpg"] == IMAGES["images/002.jpg"]


@pytest.mark.parametrize("suffix", [".tar.gz", ".tar.zst", ".zip"])
def test_bombs_are_refused(suffix: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(unpack, "_ALWAYS_BYTES", 1000)
    bomb = packed({"images/1.jpg": b"1", "images/zeros.jpg": bytes(3_000_000)}, suffix)
    assert "images do not shrink so much" in refused(tmp_path, bomb, f"images{suffix}")


def test_a_header_of_any_size_does_not_fill_the_memory(tmp_path: Path) -> None:
    header = entry("x", tarfile.XHDTYPE, size=1 << 30)
    assert "too much" in refused(tmp_path, header.tobuf() + bytes(10240))


def test_what_is_there_twice_is_refused(tmp_path: Path) -> None:
    content = tar_of(IMAGES, entry("images/001.jpg", size=5))
    assert "'images/001.jpg' twice" in refused(tmp_path, content)


def test_a_file_where_a_folder_is_to_be(tmp_path: Path) -> None:
    content = tar_of(IMAGES, entry("images/001.jpg/x.jpg", size=5))
    assert "below what is a file" in refused(tmp_path, content)


@pytest.mark.parametrize("suffix", [".tar", ".tar.gz", ".tar.zst", ".zip"])
def test_what_was_cut_off_is_refused(suffix: str, tmp_path: Path) -> None:
    images = {name: os.urandom(len(data)) for name, data in IMAGES.items()}
    content = packed(images, suffix)
    assert "cannot be unpacked" in refused(
        tmp_path, content[: len(content) * 2 // 3], f"images{suffix}"
    )


def test_a_damaged_zip_is_refused(tmp_path: Path) -> None:
    content = bytearray(zip_of(IMAGES))
    content[50] ^= 0xFF
    assert "cannot be unpacked" in refused(tmp_path, bytes(content), "images.zip")


def test_no_archive_at_all(tmp_path: Path) -> None:
    assert "cannot be unpacked" in refused(tmp_path, b"<html>sign in</html>" * 100)


def test_what_macos_adds_is_left_out(tmp_path: Path) -> None:
    more = {"__MACOSX/images/._001.jpg": b"x", "images/._001.jpg": b"x"}
    assert {*unpacked(tmp_path, zip_of(IMAGES | more), "images.zip")} == {*IMAGES}


def test_no_room(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(landing, "_SPARE_BYTES", 1 << 62)
    with pytest.raises(UserError, match=r"needs .* in the cache .*, which has .* left"):
        unpacked(tmp_path, tar_of(IMAGES))
