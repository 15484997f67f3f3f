"""Writing the record safely on local disks, NFS and Lustre; records.py reads it back. Standard
library only.

A file is either replaced whole (temp + fsync + rename in the same folder), made once (temp + fsync
+ link, or O_EXCL where there are no links), or appended to by exactly one writer; no file locks, no
reliance on modification times.
"""

from __future__ import annotations

import ctypes
import errno
import hashlib
import json
import os
import shutil
import tempfile
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO, TypeAlias

Content: TypeAlias = str | bytes | Callable[[BinaryIO], object]
"""Of a file: as it is, or what puts it into the stream that it is given."""

PRIVATE_DIR, PRIVATE_FILE = 0o755, 0o644
"""Modes, less the umask, of what decides on what is executed later: others do not write it."""
_BLOCK_BYTES = 4 * 1024 * 1024
_UMASK = threading.Lock()
"""It is the process's, and can be read only by setting it: two threads at once would lose it."""
_NO_LINKS = frozenset({errno.EPERM, errno.ENOTSUP, errno.EOPNOTSUPP, errno.EMLINK, errno.ENOSYS})
"""How file systems without hard links (some of FUSE, SMB, EOS) refuse one."""


def write_atomic(path: Path, data: str | bytes, mode: int = 0o666) -> None:
    """Replace `path` with `data` so that a reader sees the old or the new content, never a part.

    Args:
        mode: of the file, less what the umask takes away.

    Raises:
        OSError: the folder is missing or not writable, or the disk is full; `path` is untouched.
    """
    replace_with(path, _writing(data), mode)


def replace_with(path: Path, write: Callable[[BinaryIO], object], mode: int = 0o666) -> None:
    """`write_atomic` of what `write` puts into the stream that it is given, piece by piece.

    Raises:
        OSError: as `write_atomic`.
    """
    with _temporary(path, write, mode) as temporary:
        temporary.replace(path)


def write_new(path: Path, data: Content) -> None:
    """Make `path` with `data` where there is none yet; of several at once one succeeds.

    It is there whole or not at all; where the file system has no hard links, a reader may meet its
    beginning for a moment, and a writer that is killed in it may leave that.

    Raises:
        FileExistsError: there is one.
        OSError: as `write_atomic`.
    """
    with _temporary(path, _writing(data)) as temporary:
        _link_new(temporary, path)


def keep_new(file: Path, path: Path) -> None:
    """Give a complete file, in a folder of the same file system, its name where there is none yet.

    Raises:
        FileExistsError: there is one.
        OSError: the folder takes no files any more.
    """
    _sync(file)
    file.chmod(0o666 & ~_umask())
    _link_new(file, path)
    file.unlink()


def _sync(file: Path) -> None:
    fd = os.open(file, os.O_RDONLY)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


@contextmanager
def folder_beside(path: Path) -> Iterator[Path]:
    """A folder on the file system of `path`, gone afterwards with what is still in it; the folder
    of `path` is made where there is none.

    Raises:
        OSError: it cannot be made.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    folder = Path(tempfile.mkdtemp(dir=path.parent, prefix=f".{path.name}."))
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


@contextmanager
def new_folder(path: Path) -> Iterator[Path]:
    """A folder to fill with files, which is at `path` when this ends, whole or not at all.

    Raises:
        FileExistsError: there is something already.
        OSError: it cannot be made, or the disk is full.
    """
    if os.path.lexists(path):
        raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST), str(path))
    with folder_beside(path) as folder:
        yield folder
        for file in folder.iterdir():
            _sync(file)
            file.chmod(0o666 & ~_umask())
        folder.chmod(0o777 & ~_umask())
        folder.rename(path)


def keep_all(files: Sequence[Path], folder: Path) -> None:
    """`keep_new` of complete files in `folder`, by their names and in their order: all, or none.

    Raises:
        FileExistsError: there is one of these; `filename2` says which.
        OSError: as `keep_new`.
    """
    kept: list[Path] = []
    try:
        for file in files:
            keep_new(file, folder / file.name)
            kept.append(folder / file.name)
    except OSError:
        for path in kept:
            path.unlink()
        raise


def _link_new(file: Path, path: Path) -> None:
    try:
        os.link(file, path)
    except FileExistsError:
        # On NFS a request that was repeated finds what it has done itself the first time.
        if file.stat().st_nlink != 2:
            raise
    except OSError as error:
        if error.errno not in _NO_LINKS:
            raise
        _write_exclusively(path, file)


def _write_exclusively(path: Path, file: Path) -> None:
    with path.open("xb") as stream:
        try:
            with file.open("rb") as content:
                shutil.copyfileobj(content, stream, _BLOCK_BYTES)
            stream.flush()
            os.fsync(stream.fileno())
        except BaseException:
            path.unlink(missing_ok=True)
            raise


def _writing(data: Content) -> Callable[[BinaryIO], object]:
    if callable(data):
        return data
    payload = data.encode() if isinstance(data, str) else data
    return lambda stream: stream.write(payload)


@contextmanager
def _temporary(
    path: Path, write: Callable[[BinaryIO], object], mode: int = 0o666
) -> Iterator[Path]:
    """A complete file beside `path`, gone afterwards."""
    fd, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    temporary = Path(name)
    try:
        with os.fdopen(fd, "wb") as stream:
            write(stream)
            stream.flush()
            os.fsync(stream.fileno())
        temporary.chmod(mode & ~_umask())
        yield temporary
    except OSError as error:
        error.filename = str(path)
        raise
    finally:
        temporary.unlink(missing_ok=True)


def append_json_line(path: Path, record: Mapping[str, Any]) -> None:
    """Append `record` as one JSON line, and fsync it.

    A line that a killed writer left unfinished is closed first, so that one torn line never
    swallows the next record.
    """
    line = json.dumps(record, ensure_ascii=False, allow_nan=False) + "\n"
    fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_APPEND, 0o666)
    try:
        size = os.fstat(fd).st_size
        if size and os.pread(fd, 1, size - 1) != b"\n":
            line = "\n" + line
        # What is no character, as in a file name in another encoding, becomes an escape of JSON's.
        rest = line.encode(errors="backslashreplace")
        while rest:  # a disk that gets full takes the beginning, and refuses at the next write
            rest = rest[os.write(fd, rest) :]
        os.fsync(fd)
    except OSError as error:
        error.filename = str(path)
        raise
    finally:
        os.close(fd)


def sha256_of(path: Path) -> str:
    """SHA-256 of a file's content, in hexadecimal; read piece by piece, however large it is."""
    digest = hashlib.sha256()
    with path.open("rb") as stream:
        while block := stream.read(_BLOCK_BYTES):
            digest.update(block)
    return digest.hexdigest()


def sync_all(folder: Path) -> None:
    """Have the file system of a folder write out what it holds back: of many small files all at
    once.

    Raises:
        OSError: it cannot.
    """
    fd = os.open(folder, os.O_RDONLY)
    try:
        if ctypes.CDLL(None, use_errno=True).syncfs(fd):
            number = ctypes.get_errno()
            raise OSError(number, os.strerror(number), str(folder))
    finally:
        os.close(fd)


def _umask() -> int:
    with _UMASK:
        mask = os.umask(0)
        os.umask(mask)
    return mask
