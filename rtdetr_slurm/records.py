"""Reading the record: what a file says is data until it is checked. Standard library only.

A file of a run may be damaged, of another version, another user's, or no file at all. Whoever reads
one gets values of the declared types, or a BadRecord that says which file and which field.
"""

from __future__ import annotations

import errno
import json
import os
import stat
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, BinaryIO, TypeVar, cast

from rtdetr_slurm.errors import NewerVersion, RequestError, explained
from rtdetr_slurm.values import Moment as Moment
from rtdetr_slurm.values import Prose as Prose
from rtdetr_slurm.values import WrongValue, checker, shown

T = TypeVar("T")

_MOST_BYTES = 256 * 1024 * 1024
"""More is no record of ours, and would not fit a login node's memory either."""


class BadRecord(RequestError):
    """A file of a run cannot be read, or does not say what it should."""

    def __init__(self, path: object, problem: str, line: int | None = None) -> None:
        super().__init__(f"{path}:{line}: {problem}" if line else f"{path}: {problem}")


# --- files ---------------------------------------------------------------------------------
def open_file(path: Path) -> BinaryIO:
    """Open a regular file for reading; a pipe or a device in its place is not waited for.

    Raises:
        FileNotFoundError: there is none.
        BadRecord: it is no file, or may not be read.
    """
    try:
        fd = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC)
    except (FileNotFoundError, NotADirectoryError):
        raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), str(path)) from None
    except (OSError, ValueError) as error:
        raise _unreadable(path, error) from error
    if not stat.S_ISREG(os.fstat(fd).st_mode):
        os.close(fd)
        raise BadRecord(path, "this is not a regular file")
    return os.fdopen(fd, "rb")


def read_file(path: Path) -> bytes:
    """The content of a file.

    Raises:
        FileNotFoundError: there is none.
        BadRecord: it cannot be read.
    """
    with open_file(path) as stream:
        try:
            content = stream.read(_MOST_BYTES + 1)
        except OSError as error:
            raise _unreadable(path, error) from error
    if len(content) > _MOST_BYTES:
        raise BadRecord(path, f"larger than {_MOST_BYTES} bytes")
    return content


def names_in(folder: Path) -> list[str]:
    """Names of what is in a folder, sorted; none where there is no folder.

    Raises:
        BadRecord: it is no folder, or may not be read.
    """
    try:
        return sorted(path.name for path in folder.iterdir())
    except FileNotFoundError:
        return []
    except (OSError, ValueError) as error:
        raise _unreadable(folder, error) from error


def exists(path: Path) -> bool:
    """Whether there is something at `path`.

    Raises:
        BadRecord: a folder on the way may not be searched.
    """
    try:
        path.stat()
    except (FileNotFoundError, NotADirectoryError):
        return False
    except (OSError, ValueError) as error:
        raise _unreadable(path, error) from error
    return True


def read_json(path: Path) -> Any:
    """The JSON document in a file, not yet checked.

    Raises:
        FileNotFoundError: there is no such file.
        BadRecord: it cannot be read, or is no JSON.
    """
    try:
        return _parsed(read_file(path))
    except (ValueError, RecursionError) as error:
        raise BadRecord(path, f"this is not JSON: {_why(error)}") from error


def read_json_lines(path: Path) -> Iterator[tuple[int, Mapping[str, Any]]]:
    """Number and content of every JSON object in a file of lines; none where there is no file.

    The beginning of an object, which a killed writer has left, and zeros, which a crashed file
    server has, are left out.

    Raises:
        BadRecord: the file cannot be read, or a whole line is no object.
    """
    try:
        lines = read_file(path).split(b"\n")
    except FileNotFoundError:
        return
    for number, line in enumerate(lines, 1):
        try:
            content = _parsed(line)
        except ValueError as error:
            if line.startswith(b"{") or not line.strip(b"\0 \t\r"):
                continue  # cut off, or never reached the disk
            raise BadRecord(path, f"this is not JSON: {error}", number) from error
        except RecursionError as error:
            raise BadRecord(path, f"nested too deep: {error}", number) from error
        if not isinstance(content, dict):
            raise BadRecord(path, f"found {shown(content)}; expected an object", number)
        yield number, content


def _parsed(text: bytes) -> Any:
    return _DECODER.decode(text.decode())


def _no_number(word: str) -> Any:
    raise ValueError(f"{word} is no number of JSON")


_DECODER = json.JSONDecoder(parse_constant=_no_number)


def _unreadable(path: Path, error: Exception) -> BadRecord:
    problem = BadRecord(path, _why(error))
    if isinstance(error, OSError):  # a job that meets it has another try elsewhere
        problem.failure_class = explained(error).failure_class
    return problem


def _why(error: Exception) -> str:
    return (error.strerror if isinstance(error, OSError) else None) or str(error)


def checked(kind: type[T], data: Any, path: object, line: int | None = None) -> T:
    """JSON data as a value of `kind`: a dataclass, a TypedDict, or what these are made of.

    A dataclass has no other fields than its own, and those without a default all; a TypedDict may
    have further keys, which nobody reads.

    Args:
        path, line: where it is from, for the message.

    Raises:
        BadRecord: it is not of that kind.
    """
    try:
        return cast(T, checker(cast(Any, kind))(data))
    except WrongValue as error:
        raise BadRecord(path, str(error), line) from None


def read_record(kind: type[T], path: Path, known: int) -> T | None:
    """A record that is a file of its own; None while there is none.

    Args:
        known: the latest schema_version of such records.

    Raises:
        NewerVersion, BadRecord: it cannot be read.
    """
    try:
        content = read_json(path)
    except FileNotFoundError:
        return None
    check_version(content, path, known)
    return checked(kind, content, path)


def check_version(data: Any, path: object, known: int) -> None:
    """See that this rtdetr-slurm knows a record's version; one without any passes.

    Args:
        known: the latest schema_version of such records.

    Raises:
        NewerVersion: a newer rtdetr-slurm has written it.
    """
    version = data.get("schema_version") if isinstance(data, Mapping) else None
    if isinstance(version, int) and version > known:
        raise NewerVersion(path, version, known)


def checked_lines(kind: type[T], path: Path, known: int) -> list[tuple[int, T]]:
    """Number and checked value of every line of a file of `kind`; none where there is no file.

    Args:
        known: the latest schema_version of such lines; lines without one pass.

    Raises:
        NewerVersion: a newer rtdetr-slurm has written here.
        BadRecord: the file, or a line of it, cannot be read.
    """
    lines = list(read_json_lines(path))
    versions = (line.get("schema_version") for _, line in lines)
    newest = max((v for v in versions if isinstance(v, int)), default=known)
    if newest > known:
        raise NewerVersion(path, newest, known)
    return [(number, checked(kind, line, path, number)) for number, line in lines]
