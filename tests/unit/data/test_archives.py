"""Images in archives."""

from __future__ import annotations

import gzip
import tarfile
from pathlib import Path

import pytest
from archive_support import FILES, pack

from rtdetr_slurm.data import archives
from rtdetr_slurm.data.archives import ERRORS, archive_stem, is_archive, list_archive, open_archive
from rtdetr_slurm.errors import RequestError

KINDS = ["x.tar", "x.tar.gz", "x.TGZ", "x.zip"]


def names(path: Path) -> list[str]:
    return list_archive(path, lambda name: name.endswith(".jpg"))[0]


@pytest.mark.parametrize("kind", KINDS)
def test_files_are_listed_and_read_in_any_order(tmp_path: Path, kind: str) -> None:
    path = pack(tmp_path / kind)
    assert is_archive(path)
    assert archive_stem(path) == "x"
    assert names(path) == ["b.jpg", "cam 1/a.jpg"]
    archive = open_archive(path)
    for name in ("b.jpg", "cam 1/a.jpg", "b.jpg"):
        assert archive.read(name) in FILES.values()
    assert archive.read("cam 1/a.jpg") == FILES["cam 1/a.jpg"]
    with pytest.raises(FileNotFoundError):
        archive.read("none.jpg")
    assert [each.name for each in tmp_path.iterdir()] == [kind]


def test_a_tar_file_is_what_it_holds_whatever_its_name(tmp_path: Path) -> None:
    path = pack(tmp_path / "x.tgz").rename(tmp_path / "x.tar")
    assert names(path) == ["b.jpg", "cam 1/a.jpg"]


@pytest.mark.parametrize("name", ["../out.jpg", "/etc/out.jpg", "a/../../out.jpg"])
@pytest.mark.parametrize("kind", ["x.tar.gz", "x.zip"])
def test_a_name_that_leads_out_is_refused(tmp_path: Path, kind: str, name: str) -> None:
    path = pack(tmp_path / kind, {"a.jpg": b"", name: b""})
    with pytest.raises(RequestError, match=f"x\\.[a-z.]+ has an entry '{name}', which leads out"):
        names(path)


def test_links_are_no_files(tmp_path: Path) -> None:
    path = tmp_path / "x.tar"
    with tarfile.open(path, "w") as archive:
        link = tarfile.TarInfo("passwd.jpg")
        link.type, link.linkname = tarfile.SYMTYPE, "/etc/passwd"
        archive.addfile(link)
        archive.addfile(tarfile.TarInfo("a.jpg"))
    assert list_archive(path, lambda _: True) == (["a.jpg"], ["passwd.jpg"])


@pytest.mark.parametrize("kind", KINDS)
def test_what_was_cut_off_is_refused(tmp_path: Path, kind: str) -> None:
    path = pack(tmp_path / kind)
    path.write_bytes(path.read_bytes()[:-700] if kind == "x.tar" else path.read_bytes()[:-30])
    if kind == "x.tar":  # between two entries, where tarfile takes it for the end
        path.write_bytes(path.read_bytes()[:1024])
    with pytest.raises(RequestError, match=r"archive .*x\.[A-Za-z.]+ cannot be read: .+"):
        names(path)


def test_a_damaged_entry_in_the_middle_is_no_end(tmp_path: Path) -> None:
    path = pack(tmp_path / "x.tar", {f"{n}.jpg": b"." for n in range(5)})
    content = bytearray(path.read_bytes())
    content[2 * 1024 + 100] ^= 0xFF  # a header's checksum is wrong
    path.write_bytes(content)
    with pytest.raises(RequestError, match="damaged or was cut off"):
        names(path)


def test_no_archive_at_all(tmp_path: Path) -> None:
    for kind in KINDS:
        path = tmp_path / kind
        path.write_bytes(b"this is text" * 100)
        with pytest.raises(RequestError, match="cannot be read"):
            names(path)


def test_a_password_is_refused(tmp_path: Path) -> None:
    path = pack(tmp_path / "x.zip")
    content = bytearray(path.read_bytes())
    content[content.index(b"PK\x01\x02") + 8] |= 1  # the first entry's flag
    path.write_bytes(content)
    with pytest.raises(RequestError, match="it has a password"):
        names(path)


@pytest.mark.parametrize("kind", ["x.tar.gz", "x.zip"])
def test_what_unpacks_to_too_much_is_not_read(
    tmp_path: Path, kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = pack(tmp_path / kind, {"small.jpg": b".", "bomb.jpg": bytes(5000)})
    monkeypatch.setattr(archives, "MAX_FILE_BYTES", 4096)
    assert names(path) == ["small.jpg", "bomb.jpg"]
    archive = open_archive(path)
    assert archive.read("small.jpg") == b"."
    with pytest.raises(ERRORS, match="more than 4096 bytes"):
        archive.read("bomb.jpg")


def test_a_header_of_any_size_does_not_fill_the_memory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """tarfile reads the extended header of an entry whole, however large it says it is."""
    monkeypatch.setattr(archives, "MAX_FILE_BYTES", 4096)
    header = tarfile.TarInfo("x")
    header.type, header.size = tarfile.XHDTYPE, 1 << 20
    path = tmp_path / "x.tgz"
    path.write_bytes(gzip.compress(header.tobuf() + bytes(1 << 20) + bytes(1024)))
    with pytest.raises(RequestError, match="more than 4096 bytes"):
        names(path)


def test_too_many_entries(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(archives, "MAX_ENTRIES", 2)
    with pytest.raises(RequestError, match="more than 2 entries"):
        names(pack(tmp_path / "x.zip"))
