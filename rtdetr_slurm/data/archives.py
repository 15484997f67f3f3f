"""Files in archives: listed and read one by one, never unpacked. Standard library only.

Nothing is written under a name that an archive gives, and nothing of it is in memory but the entry
that is read.
"""

from __future__ import annotations

import gzip
import posixpath
import struct
import tarfile
import zipfile
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import IO, Any, BinaryIO, Protocol, cast

from rtdetr_slurm.errors import RequestError
from rtdetr_slurm.spec.dataset import ARCHIVE_SUFFIXES, PACKED_SUFFIXES

MAX_FILE_BYTES = 1 << 30
"""A larger image file is not read: what an archive unpacks to must not fill the memory."""
MAX_ENTRIES = 5_000_000
"""More entries are not listed."""

ERRORS = (
    OSError,  # also gzip's and bzip2's
    EOFError,
    RuntimeError,  # a zip entry that wants a password, or a compression that is not known
    ValueError,
    OverflowError,
    struct.error,
    tarfile.TarError,
    zipfile.BadZipFile,
    zlib.error,
)
"""What the libraries raise for archives that are damaged, or that they do not know."""


class Archive(Protocol):
    """An archive to read from; not for two threads at once.

    Attributes:
        sequential: an entry is reached through all before it alone, so that each of several
            readers goes through all of it.
    """

    sequential: bool

    def read(self, name: str) -> bytes:
        """The content of an entry of `list_archive`; cheapest in that order.

        Raises:
            FileNotFoundError: there is no such entry.
            one of ERRORS: it cannot be read.
        """


def is_archive(path: Path) -> bool:
    """Whether a path names an archive, by its suffix."""
    return path.name.lower().endswith(ARCHIVE_SUFFIXES)


def archive_stem(path: Path) -> str:
    """The name of an archive without its suffix, whichever has one."""
    name = path.name.lower()
    suffix = max((s for s in PACKED_SUFFIXES if name.endswith(s)), key=len, default="")
    return path.name.removesuffix(path.name[len(name) - len(suffix) :]) or path.name


def open_archive(path: Path) -> Archive:
    return _Zip(path) if path.name.lower().endswith(".zip") else _Tar(path)


def list_archive(path: Path, wanted: Callable[[str], bool]) -> tuple[list[str], list[str]]:
    """The names of an archive's files, in its order, without `./`, each once.

    All of it is looked at, for a file that was cut off shows at its end.

    Args:
        wanted: which names count.

    Returns:
        Files that can be read, and the links and special files among the wanted names.

    Raises:
        RequestError: it cannot be read, is damaged, has a password or too many entries, or has a
            name that leads out of it.
    """
    entries = _zip_entries if path.name.lower().endswith(".zip") else _tar_entries
    files: dict[str, None] = {}
    others: dict[str, None] = {}
    try:
        for number, (name, is_file) in enumerate(entries(path)):
            if number >= MAX_ENTRIES:
                raise RequestError(f"archive {path} has more than {MAX_ENTRIES} entries; split it")
            _check_name(path, name)
            if wanted(name):
                (files if is_file else others)[_plain(name)] = None
    except ERRORS as error:
        reason = getattr(error, "strerror", None) or error or type(error).__name__
        raise RequestError(f"archive {path} cannot be read: {reason}") from None
    return [*files], [*others]


def _check_name(path: Path, name: str) -> None:
    if name.startswith("/") or ".." in name.split("/"):
        raise RequestError(
            f"archive {path} has an entry {name!r}, which leads out of it; pack it with names "
            "relative to the folder of the images"
        )


def _plain(name: str) -> str:
    return posixpath.normpath(name)


# --- zip -----------------------------------------------------------------------------------
def _zip_entries(path: Path) -> Iterator[tuple[str, bool]]:
    with zipfile.ZipFile(path) as archive:
        for info in archive.infolist():
            if info.flag_bits & 1:
                raise RuntimeError("it has a password; pack it without one")
            yield info.filename, not info.is_dir()


class _Zip:
    sequential = False

    def __init__(self, path: Path) -> None:
        self._archive = zipfile.ZipFile(path)
        self._entries = {_plain(info.filename): info for info in self._archive.infolist()}

    def read(self, name: str) -> bytes:
        if name not in self._entries:
            raise FileNotFoundError(name)
        info = self._entries[name]
        _check_size(info.file_size)
        return self._archive.read(info)


# --- tar -----------------------------------------------------------------------------------
def _tar_entries(path: Path) -> Iterator[tuple[str, bool]]:
    return ((entry.name, entry.isreg()) for entry, _ in _walk_tar(path))


class _Tar:
    """Reads on from the entry before: compressed, a tar file can be read in no other way."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._walk = _walk_tar(path)
        self.sequential = _is_compressed(path)

    def read(self, name: str) -> bytes:
        for _ in range(2):
            for entry, archive in self._walk:
                if entry.isreg() and _plain(entry.name) == name:
                    _check_size(entry.size)
                    content = archive.extractfile(entry)
                    assert content is not None
                    return content.read()
            self._walk = _walk_tar(self._path)  # it was passed; or is not there
        raise FileNotFoundError(name)


def _walk_tar(path: Path) -> Iterator[tuple[tarfile.TarInfo, tarfile.TarFile]]:
    """Entry by entry.

    Raises:
        one of ERRORS: it is damaged, or ends before its end; tarfile takes that for the end.
    """
    with _open_tar(path) as file:
        yield from walk_tar(file)


def walk_tar(
    file: BinaryIO, most: int | None = None
) -> Iterator[tuple[tarfile.TarInfo, tarfile.TarFile]]:
    """Entry by entry of what is a tar file from where it stands, read forwards alone.

    Args:
        most: bytes that are taken into memory at once; left out, MAX_FILE_BYTES.

    Raises:
        one of ERRORS: it is damaged, or ends before its end; tarfile takes that for the end.
    """
    bounded = _Bounded(file, most)
    with tarfile.open(fileobj=cast(IO[bytes], bounded), mode="r:") as archive:
        while (entry := archive.next()) is not None:
            yield entry, archive
            vars(archive)["members"] = []  # else it keeps them all
    if bounded.last_block != bytes(tarfile.BLOCKSIZE):
        raise tarfile.ReadError("it is damaged or was cut off: it has no end mark")


def _open_tar(path: Path) -> BinaryIO:
    return cast(BinaryIO, gzip.open(path, "rb") if _is_compressed(path) else path.open("rb"))


def _is_compressed(path: Path) -> bool:
    """Whatever its name says."""
    with path.open("rb") as stream:
        return stream.read(2) == b"\x1f\x8b"


class _Bounded:
    """A file for tarfile, which would take any number that a header says into memory."""

    def __init__(self, file: BinaryIO, most: int | None) -> None:
        self._file, self._most = file, most
        self.last_block = b""

    def read(self, size: int) -> bytes:
        _check_size(size, self._most)
        content = self._file.read(size)
        if size == tarfile.BLOCKSIZE:
            self.last_block = content
        return content

    def __getattr__(self, name: str) -> Any:
        return getattr(self._file, name)


def _check_size(size: int, most: int | None = None) -> None:
    most = MAX_FILE_BYTES if most is None else most
    if not 0 <= size <= most:
        raise ValueError(f"it has a file of more than {most} bytes, which is too much")
