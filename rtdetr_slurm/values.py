"""JSON data → values of declared types: what a record holds, field by field. Standard library only.

What makes a value of a type is worked out once and then costs little: `status` reads the records of
a thousand runs.
"""

from __future__ import annotations

import math
import os
import types
from collections.abc import Callable, Iterable, Mapping
from dataclasses import MISSING, Field, fields, is_dataclass
from datetime import datetime
from enum import Enum
from functools import cache
from typing import (
    Annotated,
    Any,
    Literal,
    Union,
    get_args,
    get_origin,
    get_type_hints,
    is_typeddict,
)

from rtdetr_slurm.errors import UserError

_DEEPEST = 50
"""Levels of a nested value; a spec has less than ten."""
_LARGEST = 2**63 - 1

Check = Callable[[Any], Any]
"""Makes a value of JSON data; raises WrongValue."""

Prose = Annotated[str, "prose"]
"""Text for people, whatever is in it. Other text may become a path or an argument of a command,
so it can be one."""
Moment = Annotated[str, "moment"]
"""A time in ISO 8601 that says its time zone."""


class WrongValue(ValueError):
    """What is wrong with a field; the innermost one first."""

    def __init__(self, problem: str, *keys: str) -> None:
        super().__init__(problem)
        self.problem, self.keys = problem, keys

    def below(self, key: str) -> WrongValue:
        return WrongValue(self.problem, key, *self.keys)

    def __str__(self) -> str:
        return ": ".join(filter(None, [".".join(self.keys), self.problem]))


@cache
def checker(kind: Any) -> Check:
    """What makes a value of `kind` of JSON data, or raises WrongValue; worked out once per kind."""
    origin, kinds = get_origin(kind), get_args(kind)
    if kind is Any:
        return _plain
    if kind == Prose:
        return _expecting(lambda data: isinstance(data, str), "text")
    if kind == Moment:
        return _expecting(_is_moment, "a time in ISO 8601 with its time zone")
    if origin in (Union, types.UnionType):
        return _one_of(kinds)
    if origin is Literal:
        return _expecting(lambda data: data in kinds, "one of " + ", ".join(kinds))
    if origin in (tuple, list):
        return _list_of(origin, checker(kinds[0]))
    if origin is not None and issubclass(dict, origin):
        return _object_of(checker(kinds[1]))
    if is_dataclass(kind):
        return _dataclass(kind)
    if is_typeddict(kind):
        return _typed_dict(kind)
    if isinstance(kind, type) and issubclass(kind, Enum):
        return _member_of(kind)
    if kind in _SCALARS:
        return _expecting(*_SCALARS[kind])
    raise TypeError(f"no record holds a {kind}")


def _expecting(good: Callable[[Any], bool], what: str) -> Check:
    def check(data: Any) -> Any:
        if not good(data):
            raise WrongValue(f"found {shown(data)}; expected {what}")
        return data

    return check


def _member_of(kind: type[Enum]) -> Check:
    values = [member.value for member in kind]
    expect = _expecting(lambda data: data in values, "one of " + ", ".join(values))
    return lambda data: kind(expect(data))


def _one_of(kinds: tuple[Any, ...]) -> Check:
    nothing = type(None) in kinds
    *others, last = [checker(kind) for kind in kinds if kind is not type(None)]

    def check(data: Any) -> Any:
        if data is None and nothing:
            return None
        for other in others:
            try:
                return other(data)
            except WrongValue:
                continue
        return last(data)

    return check


def _list_of(origin: Callable[[Iterable[Any]], Any], check: Check) -> Check:
    def check_list(data: Any) -> Any:
        if not isinstance(data, list):
            raise WrongValue(f"found {shown(data)}; expected a list")
        return origin(_each(enumerate(data), lambda _: check).values())

    return check_list


def _object_of(check: Check) -> Check:
    if check is _plain:
        return lambda data: _plain(_an_object(data))

    def check_object(data: Any) -> Any:
        found = _each(_an_object(data).items(), lambda _: check)
        for key in found:
            _text(key)
        return found

    return check_object


def _dataclass(kind: Any) -> Check:
    hints = get_type_hints(kind, include_extras=True)
    checks = {field.name: checker(hints[field.name]) for field in fields(kind)}
    # One with a default may be younger than the record.
    required = [field.name for field in fields(kind) if not _has_default(field)]

    def check(data: Any) -> Any:
        data = _an_object(data)
        if data.keys() != checks.keys():
            if missing := [name for name in required if name not in data]:
                raise WrongValue("this field is missing", missing[0])
            if further := [key for key in data if key not in checks]:
                raise WrongValue("this version knows no such field", repr(further[0]))
        values = _each(data.items(), checks.__getitem__)
        try:
            return kind(**values)
        except (ValueError, UserError) as error:  # what it says of its own values
            raise WrongValue(str(error)) from error

    return check


def _has_default(field: Field[Any]) -> bool:
    return field.default is not MISSING or field.default_factory is not MISSING


def _typed_dict(kind: Any) -> Check:
    hints = get_type_hints(kind, include_extras=True)
    checks = {name: checker(hint) for name, hint in hints.items()}
    required = kind.__required_keys__

    def check(data: Any) -> Any:
        data = _an_object(data)
        if missing := sorted(required - data.keys()):
            raise WrongValue("this field is missing", missing[0])
        return _each(data.items(), lambda key: checks.get(key, _unread))

    return check


def _unread(data: Any) -> Any:
    return data


def _an_object(data: Any) -> dict[str, Any]:
    if not isinstance(data, dict):
        raise WrongValue(f"found {shown(data)}; expected an object")
    return data


def _each(items: Iterable[tuple[Any, Any]], check_of: Callable[[Any], Check]) -> dict[Any, Any]:
    """The items, checked; what is wrong with one is told with its key."""
    found, key = {}, None
    try:
        for key, item in items:
            found[key] = check_of(key)(item)
    except WrongValue as error:
        raise error.below(str(key)) from None
    return found


def _plain(data: Any) -> Any:
    """Any JSON value that can be written down again."""
    if not _are_plain((data,), 0):
        _refuse(data, 0)
    return data


def _are_plain(items: Iterable[Any], depth: int) -> bool:
    """Written for speed: a resolved spec has some hundred values."""
    for item in items:
        kind = type(item)
        if kind is str:
            if (not item.isascii() or "\0" in item) and not _is_text(item):
                return False
        elif kind is dict:
            # All keys at once, and one by one only where there is something odd.
            if not _is_text("".join(item)) and not all(map(_is_text, item)):
                return False
            if depth > _DEEPEST or not _are_plain(item.values(), depth + 1):
                return False
        elif kind is list:
            if depth > _DEEPEST or not _are_plain(item, depth + 1):
                return False
        elif kind is int:
            if not -_LARGEST <= item <= _LARGEST:
                return False
        elif item is not None and kind is not bool and not math.isfinite(item):
            return False
    return True


def _refuse(data: Any, depth: int) -> None:
    """Find what is wrong with a value that is not plain.

    Raises:
        WrongValue: always.
    """
    if depth > _DEEPEST:
        raise WrongValue(f"nested more than {_DEEPEST} levels deep")
    if isinstance(data, dict):
        for key in data:
            _text(key)
        _each(data.items(), lambda _: lambda item: _refuse(item, depth + 1))
    elif isinstance(data, list):
        _each(enumerate(data), lambda _: lambda item: _refuse(item, depth + 1))
    elif data is not None:
        _expecting(*_SCALARS[type(data)])(data)


def _is_int(data: Any) -> bool:
    return isinstance(data, int) and not isinstance(data, bool) and abs(data) <= _LARGEST


def _is_float(data: Any) -> bool:
    return _is_int(data) or (isinstance(data, float) and math.isfinite(data))


def _is_moment(data: Any) -> bool:
    try:
        found = datetime.fromisoformat(data)
    except (TypeError, ValueError):
        return False
    return found.tzinfo is not None and 1970 <= found.year < 9999


def _is_text(data: Any) -> bool:
    """Whether it can be a path, an argument of a command, and part of a file."""
    if not isinstance(data, str) or "\0" in data:
        return False
    try:
        return data.isascii() or bool(os.fsencode(data))
    except UnicodeEncodeError:
        return False


_text = _expecting(_is_text, "text")
_SCALARS: Mapping[Any, tuple[Callable[[Any], bool], str]] = {
    str: (_is_text, "text"),
    bool: (lambda data: isinstance(data, bool), "true or false"),
    type(None): (lambda data: data is None, "null"),
    int: (_is_int, "a whole number"),
    float: (_is_float, "a number"),
}


def shown(data: Any) -> str:
    text = ascii(data) if isinstance(data, str | int | float | None) else f"a {type(data).__name__}"
    return text if len(text) <= 40 else f"{text[:40]}…"
