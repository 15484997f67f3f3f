"""A resolved spec as YAML text, written without a YAML library. Standard library only.

The compute node fills in the inputs of a stage and writes its spec, and may have nothing installed
but Python. Scalars are written as JSON has them, which YAML 1.1 and 1.2 readers read alike.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

_KEY = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
_NOT_PLAIN = re.compile("[\x7f-\x9f\u2028\u2029\ufeff\ufffe\uffff]")
"""Allowed in JSON, but not, or as line breaks, in YAML."""
_WORDS = frozenset({"y", "n", "yes", "no", "on", "off", "true", "false", "null"})


def spec_text(spec: Mapping[str, Any]) -> str:
    """Plain data (maps, lists, text, numbers, booleans, None) as block-style YAML."""
    return "\n".join(_map_lines(spec)) + "\n"


def with_value(spec: Mapping[str, Any], path: str, value: Any) -> dict[str, Any]:
    """A copy of `spec` with `value` at a dotted path, in which a number is the index of a list's
    item; missing sections on the way are made."""
    return dict(_with(spec, path.split("."), value))


def _with(node: Any, keys: Sequence[str], value: Any) -> Any:
    if not keys:
        return value
    key, rest = keys[0], keys[1:]
    if isinstance(node, list):
        index = int(key)
        return [_with(item, rest, value) if at == index else item for at, item in enumerate(node)]
    section = node or {}
    return {**section, key: _with(section.get(key), rest, value)}


def with_values(spec: Mapping[str, Any], values: Mapping[str, Any]) -> dict[str, Any]:
    """A copy of `spec` with the values at their dotted paths."""
    filled = dict(spec)
    for path, value in values.items():
        filled = with_value(filled, path, value)
    return filled


def value_at(spec: Mapping[str, Any], path: str) -> Any:
    """The value at a dotted path; None where there is none."""
    node: Any = spec
    for key in path.split("."):
        if isinstance(node, list):
            node = node[int(key)] if key.isdecimal() and int(key) < len(node) else None
        else:
            node = node.get(key) if isinstance(node, Mapping) else None
    return node


FILE_URI = "file:///"
REMOTE = ("s3://", "https://", "http://")
"""How addresses begin whose files are fetched."""


def is_uri(value: Any) -> bool:
    """Whether a path field holds an address (`s3://…`, `file:///…`) and not a path."""
    return isinstance(value, str) and "://" in value


def is_remote(value: Any) -> bool:
    """Whether a path field holds an address whose file is fetched."""
    return isinstance(value, str) and value.startswith(REMOTE)


def shown_uri(uri: str) -> str:
    """An address for messages and records: without a password, and without the query of a web
    address, which may let its bearer in."""
    if "://" not in uri or uri.lower().startswith(("s3://", FILE_URI)):
        return uri
    return re.sub(r"://[^/]*@", "://", re.split(r"[?#]", uri, maxsplit=1)[0], count=1)


def local_path(value: str) -> Path | None:
    """The path that a path field holds, also as `file:///…`; None for any other address."""
    if not is_uri(value):
        return Path(value)
    return Path(unquote(urlsplit(value).path)) if value.startswith(FILE_URI) else None


def _map_lines(data: Mapping[str, Any]) -> Iterator[str]:
    for key, value in data.items():
        yield from _entry(f"{_key(str(key))}:", value)


def _entry(head: str, value: Any) -> Iterator[str]:
    """`head` with a value behind it, or below it where that has parts."""
    if isinstance(value, Mapping) and value:
        yield head
        yield from (f"  {line}" for line in _map_lines(value))
    elif isinstance(value, list | tuple) and any(isinstance(v, Mapping | list) for v in value):
        yield head
        for item in value:
            first, *rest = _item_lines(item)
            yield f"  - {first}"
            yield from (f"    {line}" for line in rest)
    else:
        yield f"{head} {_scalar(value)}"


def _item_lines(item: Any) -> list[str]:
    if isinstance(item, Mapping) and item:
        return list(_map_lines(item))
    return [_scalar(item)]


def _scalar(value: Any) -> str:
    """A scalar, an empty map, or a list of scalars on one line."""
    if isinstance(value, list | tuple):
        return "[" + ", ".join(_scalar(v) for v in value) + "]"
    if isinstance(value, float):
        if not math.isfinite(value):
            raise ValueError(f"{value} is not a number of a spec")
        text = repr(value)
        # YAML 1.1 takes 1e-05 for text: it wants the point.
        return text if "." in text or "e" not in text else text.replace("e", ".0e")
    return _quoted(value)


def _quoted(value: Any) -> str:
    text = json.dumps(value, ensure_ascii=False, allow_nan=False)
    return _NOT_PLAIN.sub(lambda match: f"\\u{ord(match[0]):04x}", text)


def _key(name: str) -> str:
    plain = _KEY.fullmatch(name) and name.lower() not in _WORDS
    return name if plain else _quoted(name)
