"""Archives, unpacked while they come. What is in one is somebody else's: nothing of it is written
outside its folder, through a link, as a device, or without end."""

from __future__ import annotations

import gzip
import posixpath
import stat
import tarfile
import zipfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from typing import IO, BinaryIO, cast

from rtdetr_slurm.data.archives import ERRORS, MAX_ENTRIES, MAX_FILE_BYTES, walk_tar
from rtdetr_slurm.errors import UserError
from rtdetr_slurm.staging.landing import BadArchive, Landing
from rtdetr_slurm.staging.progress import size_text
from rtdetr_slurm.storage.stream import ObjectStream

_MOST_RATIO, _ALWAYS_BYTES = 100, 1 << 30
"""An archive may unpack to so many times its size, and in any case to so much: images hardly get
smaller when packed."""
_WHOLE_BYTES = 16 << 20
"""A file up to this size is handed over in one piece."""
_CHUNK_BYTES = 1 << 20
_HEADER_BYTES = 16 << 20
_LINK_BYTES = 4096

_GZIP, _ZSTD = b"\x1f\x8b", b"\x28\xb5\x2f\xfd"


@dataclass(frozen=True)
class _Member:
    """An entry of an archive.

    Attributes:
        name: as the archive has it.
        open: a stream of its content; for a regular file.
        target: of a link: a path from the top of the archive.
        following: where the next one begins, in a tar file that is not compressed.
    """

    name: str
    size: int
    open: Callable[[], IO[bytes]] | None = None
    target: str | None = None
    following: int | None = None


def unpack(
    stream: ObjectStream, size: int, landing: Landing, wanted: Callable[[str], bool]
) -> None:
    """Have the wanted files of an archive land, under the names that it gives them.

    Args:
        stream, size: the archive, and its bytes.
        wanted: of a name, without `./`.

    Raises:
        BadArchive: it is damaged, or has something in it that is refused.
        UserError: it cannot be read, or what is in it not be written.
    """
    beginning = stream.read(4)
    stream.seek(0)
    try:
        if is_zip(beginning):
            _land(_zip_members(stream), size, landing, wanted)
        elif (decompressed := _decompressed(stream, beginning)) is not None:
            with decompressed as file:
                _land(_tar_members(file, resumable=False), size, landing, wanted)
        else:
            stream.seek(landing.resume_at)
            file = cast(BinaryIO, stream)
            _land(_tar_members(file, resumable=True), size, landing, wanted)
    except UserError:
        raise
    except Exception as error:
        if not isinstance(error, ERRORS) and type(error).__name__ != "ZstdError":
            raise
        reason = getattr(error, "strerror", None) or error or type(error).__name__
        raise BadArchive(f"it cannot be unpacked: {reason}") from error


def is_zip(beginning: bytes) -> bool:
    """By how it begins, whatever its name says."""
    return beginning[:2] == b"PK"


def _land(
    members: Iterator[_Member], size: int, landing: Landing, wanted: Callable[[str], bool]
) -> None:
    limit = max(_ALWAYS_BYTES, _MOST_RATIO * size)
    unpacked = 0
    links: list[tuple[str, str]] = []
    for number, member in enumerate(members):
        if number >= MAX_ENTRIES:
            raise BadArchive(f"it has more than {MAX_ENTRIES:,} entries; split it")
        name = safe_name(member.name)
        unpacked += member.size
        if unpacked > limit:
            raise BadArchive(
                f"it is {size_text(size)} and unpacks to more than {size_text(limit)}; images do "
                "not shrink so much"
            )
        if member.target is not None:
            target = safe_name(member.target)
            if wanted(name) and not landing.link(name, target):
                links.append((name, target))
        elif member.open is not None and wanted(name) and not landing.has(name):
            if member.size > MAX_FILE_BYTES:
                raise BadArchive(f"{name!r} in it has {size_text(member.size)}, which is too much")
            # Who goes on from a later entry would not learn of a link that waits for its file.
            at = None if links else member.following
            if member.size <= _WHOLE_BYTES:
                landing.put(name, member.open().read(), at=at)
            else:
                landing.put(name, lambda: _pieces(member), at=at)  # noqa: B023
                landing.settle()  # before the stream goes on
    for name, target in links:
        if not landing.link(name, target):
            raise BadArchive(
                f"{name!r} in it is a link to {target!r}, which is no file that is unpacked; pack "
                "the files themselves (tar --dereference)"
            )


def _pieces(member: _Member) -> Iterator[bytes]:
    assert member.open is not None
    content = member.open()
    while piece := content.read(_CHUNK_BYTES):
        yield piece


def safe_name(name: str) -> str:
    """A name within the archive, without `./`.

    Raises:
        BadArchive: it leads out of it, or no file has such a name.
    """
    if name.startswith("/") or ".." in name.split("/"):
        raise BadArchive(
            f"it has an entry {name!r}, which leads out of it; pack it with names relative to the "
            "folder of the images"
        )
    if "\0" in name:
        raise BadArchive(f"it has an entry {name!r}, which is no name of a file")
    return posixpath.normpath(name)


def _target(name: str, link: str) -> str:
    """What a symbolic link of a name leads to, from the top of the archive."""
    if link.startswith("/"):
        raise BadArchive(f"{name!r} in it is a link to {link!r}, out of it")
    target = posixpath.normpath(posixpath.join(posixpath.dirname(name), link))
    if target.split("/")[0] == "..":
        raise BadArchive(f"{name!r} in it is a link to {link!r}, out of it")
    return target


def _special(name: str) -> BadArchive:
    return BadArchive(f"{name!r} in it is a device or a pipe")


# --- tar -----------------------------------------------------------------------------------
def _decompressed(stream: ObjectStream, beginning: bytes) -> BinaryIO | None:
    """What a tar file is packed with is known by how it begins, whatever its name says; None:
    with nothing."""
    file = cast(BinaryIO, stream)
    if beginning[:2] == _GZIP:
        return cast(BinaryIO, gzip.open(file, "rb"))
    if beginning == _ZSTD:
        import zstandard

        frames = zstandard.ZstdDecompressor().stream_reader(
            file, read_size=_CHUNK_BYTES, read_across_frames=True, closefd=False
        )
        return cast(BinaryIO, frames)
    return None


def _tar_members(file: BinaryIO, *, resumable: bool) -> Iterator[_Member]:
    for entry, archive in walk_tar(file, _HEADER_BYTES):
        if entry.isreg():
            following = vars(archive)["offset"] if resumable else None
            yield _Member(
                entry.name, entry.size, partial(_tar_content, archive, entry), None, following
            )
        elif entry.islnk():
            yield _Member(entry.name, 0, target=entry.linkname)
        elif entry.issym():
            yield _Member(entry.name, 0, target=_target(entry.name, entry.linkname))
        elif entry.isdir():
            yield _Member(entry.name, 0)
        else:
            raise _special(entry.name)


def _tar_content(archive: tarfile.TarFile, entry: tarfile.TarInfo) -> IO[bytes]:
    content = archive.extractfile(entry)
    assert content is not None
    return content


# --- zip -----------------------------------------------------------------------------------
def _zip_members(stream: ObjectStream) -> Iterator[_Member]:
    with zipfile.ZipFile(cast(IO[bytes], stream)) as archive:
        for info in sorted(archive.infolist(), key=lambda one: one.header_offset):
            name = info.filename.replace("\\", "/")  # as some programs on Windows write it
            kind = stat.S_IFMT(info.external_attr >> 16)
            if info.flag_bits & 1:
                raise BadArchive("it has a password; pack it without one")
            if info.is_dir() or kind == stat.S_IFDIR:
                yield _Member(name, 0)
            elif kind == stat.S_IFLNK:
                if info.file_size > _LINK_BYTES:
                    raise BadArchive(f"{name!r} in it is a link of {info.file_size} bytes")
                link = archive.read(info).decode(errors="surrogateescape")
                yield _Member(name, 0, target=_target(name, link))
            elif kind in (0, stat.S_IFREG):
                yield _Member(name, info.file_size, partial(archive.open, info))
            else:
                raise _special(name)
