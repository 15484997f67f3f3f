"""Reading the record: what a file says is data until it is checked. Standard library only.

A file of a run may be damaged, of another version, another user's, or no file at all. Whoever reads
one gets values of the declared types, or a BadRecord that says which file and which field.
"""

from __future__ import annotations

import errno
import json
import math
import os
import stat
import types
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import MISSING, fields, is_dataclass
from datetime import datetime
from enum import Enum
from functools import cache
from pathlib import Path
from typing import (
    Annotated,
    Any,
    BinaryIO,
    Literal,
    TypeVar,
    Union,
    cast,
    get_args,
    get_origin,
    get_type_hints,
    is_typeddict,
)

from rtdetr_slurm.errors import NewerVersion, RequestError, UserError

T = TypeVar("T")

_MOST_BYTES = 256 * 1024 * 1024
"""More is no record of ours, and would not fit a login node's memory either."""
_DEEPEST = 50
"""Levels of a nested value; a spec has less than ten."""
_LARGEST = 2**63 - 1


Prose = Annotated[str, "prose"]
"""Text for people, whatever is in it. Other text may become a path or an argument of a command,
so it can be one."""
Moment = Annotated[str, "moment"]
"""A time in ISO 8601 that says its time zone."""


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
        raise BadRecord(path, _why(error)) from error
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
            raise BadRecord(path, _why(error)) from error
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
        raise BadRecord(folder, _why(error)) from error


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
        raise BadRecord(path, _why(error)) from error
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
            raise BadRecord(path, f"found {_shown(content)}; expected an object", number)
        yield number, content


def _parsed(text: bytes) -> Any:
    return json.loads(text.decode(), parse_constant=_no_number)


def _no_number(word: str) -> Any:
    raise ValueError(f"{word} is no number of JSON")


def _why(error: Exception) -> str:
    return (error.strerror if isinstance(error, OSError) else None) or str(error)


# --- values --------------------------------------------------------------------------------
class _Wrong(ValueError):
    """What is wrong with a field; the innermost one first."""

    def __init__(self, problem: str, *keys: str) -> None:
        super().__init__(problem)
        self.problem, self.keys = problem, keys

    def below(self, key: str) -> _Wrong:
        return _Wrong(self.problem, key, *self.keys)

    def __str__(self) -> str:
        return ": ".join(filter(None, [".".join(self.keys), self.problem]))


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
        return cast(T, _value(kind, data))
    except _Wrong as error:
        raise BadRecord(path, str(error), line) from None


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


def _value(kind: Any, data: Any) -> Any:
    origin = get_origin(kind)
    if kind is Any:
        return _plain(data)
    if kind == Prose:
        return _expect(isinstance(data, str), data, "text")
    if kind == Moment:
        return _expect(_is_moment(data), data, "a time in ISO 8601 with its time zone")
    if origin in (Union, types.UnionType):
        return _one_of(get_args(kind), data)
    if origin is Literal:
        return _expect(data in get_args(kind), data, "one of " + ", ".join(get_args(kind)))
    if origin is not None:
        return _container(origin, get_args(kind), data)
    if is_dataclass(kind):
        return _dataclass(kind, data)
    if is_typeddict(kind):
        return _typed_dict(kind, data)
    if issubclass(kind, Enum):
        values = [member.value for member in kind]
        return kind(_expect(data in values, data, f"one of {', '.join(values)}"))
    return _scalar(kind, data)


def _scalar(kind: Any, data: Any) -> Any:
    if kind is str:
        return _expect(isinstance(data, str) and _is_text(data), data, "text")
    if kind is bool or kind is type(None):
        return _expect(isinstance(data, kind), data, "true or false" if kind is bool else "null")
    number = isinstance(data, int) and not isinstance(data, bool)
    if kind is int:
        return _expect(number and abs(data) <= _LARGEST, data, "a whole number")
    if kind is float:
        real = isinstance(data, float) and math.isfinite(data)
        return _expect(real or (number and abs(data) <= _LARGEST), data, "a number")
    raise TypeError(f"no record holds a {kind}")


def _one_of(kinds: tuple[Any, ...], data: Any) -> Any:
    if data is None and type(None) in kinds:
        return None
    *others, last = [kind for kind in kinds if kind is not type(None)]
    for kind in others:
        try:
            return _value(kind, data)
        except _Wrong:
            continue
    return _value(last, data)


def _container(origin: Any, kinds: tuple[Any, ...], data: Any) -> Any:
    if origin in (tuple, list):
        _expect(isinstance(data, list), data, "a list")
        items = _each(enumerate(data), lambda _, item: _value(kinds[0], item))
        return origin(items.values())
    if issubclass(dict, origin):
        _expect(isinstance(data, dict), data, "an object")
        return _each(data.items(), lambda key, item: (_value(str, key), _value(kinds[1], item))[1])
    raise TypeError(f"no record holds a {origin}")


def _dataclass(kind: Any, data: Any) -> Any:
    _expect(isinstance(data, dict), data, "an object")
    hints = _hints(kind)
    names = [field.name for field in fields(kind)]
    # One with a default may be younger than the record.
    needed = [f.name for f in fields(kind) if f.default is f.default_factory is MISSING]
    if missing := [name for name in needed if name not in data]:
        raise _Wrong("this field is missing", missing[0])
    if further := [key for key in data if key not in names]:
        raise _Wrong("this version knows no such field", repr(further[0]))
    values = _each(data.items(), lambda key, item: _value(hints[key], item))
    try:
        return kind(**values)
    except (ValueError, UserError) as error:  # what it says of its own values
        raise _Wrong(str(error)) from error


def _typed_dict(kind: Any, data: Any) -> Any:
    _expect(isinstance(data, dict), data, "an object")
    hints = _hints(kind)
    if missing := sorted(kind.__required_keys__ - {*data}):
        raise _Wrong("this field is missing", missing[0])
    return _each(data.items(), lambda key, item: _value(hints[key], item) if key in hints else item)


def _each(items: Iterable[tuple[Any, Any]], check: Callable[[Any, Any], Any]) -> dict[Any, Any]:
    """The items, checked; what is wrong with one is told with its key."""
    found = {}
    for key, item in items:
        try:
            found[key] = check(key, item)
        except _Wrong as error:
            raise error.below(str(key)) from None
    return found


def _plain(data: Any, depth: int = 0) -> Any:
    """Any JSON value that can be written down again."""
    if depth > _DEEPEST:
        raise _Wrong(f"nested more than {_DEEPEST} levels deep")
    if isinstance(data, dict):
        _each(data.items(), lambda key, item: (_scalar(str, key), _plain(item, depth + 1)))
    elif isinstance(data, list):
        _each(enumerate(data), lambda _, item: _plain(item, depth + 1))
    elif data is not None:
        _scalar(type(data), data)
    return data


def _is_moment(data: Any) -> bool:
    try:
        found = datetime.fromisoformat(data)
    except (TypeError, ValueError):
        return False
    return found.tzinfo is not None and 1970 <= found.year < 9999


def _is_text(data: str) -> bool:
    """Whether it can be a path, an argument of a command, and part of a file."""
    try:
        return b"\0" not in os.fsencode(data)
    except UnicodeEncodeError:
        return False


def _expect(good: bool, data: Any, what: str) -> Any:
    if not good:
        raise _Wrong(f"found {_shown(data)}; expected {what}")
    return data


def _shown(data: Any) -> str:
    text = ascii(data) if isinstance(data, str | int | float | None) else f"a {type(data).__name__}"
    return text if len(text) <= 40 else f"{text[:40]}…"


@cache
def _hints(kind: Any) -> dict[str, Any]:
    return get_type_hints(kind, include_extras=True)
