"""YAML text to plain data in which every value still knows its line and column.

Reading differs from plain PyYAML where that would surprise the author of a spec: a key given
twice is refused, keys are always text, `1e-4` is a number, and `1:30:00`, `010` and dates stay
text. Booleans keep YAML 1.1's words (true, yes, on, ...), as in TAO's own files.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import yaml

from rtdetr_slurm.errors import RequestError

if TYPE_CHECKING:
    from yaml.nodes import MappingNode, Node, SequenceNode

KeyPath = tuple[str | int, ...]
MAX_VALUES = 100_000
"""A file that unfolds to more values than this (by aliases of aliases) is refused."""


class Position(NamedTuple):
    """A place in a text file; both numbers count from 1."""

    line: int
    column: int


@dataclass(frozen=True)
class YamlSource:
    """The content of one YAML file and where each part of it stands.

    Attributes:
        path: the file, as messages name it.
        data: its mapping, as plain dicts, lists, text, numbers, booleans and None.
        positions: value's path to where the value starts; `()` is the whole file.
        key_positions: the same for the key in front of it.
        overrides: path and full text of each value that did not come from the file, in the
            order given; a later one wins.
    """

    path: Path
    data: dict[str, Any]
    positions: Mapping[KeyPath, Position]
    key_positions: Mapping[KeyPath, Position] = field(default_factory=dict)
    overrides: tuple[tuple[KeyPath, str], ...] = ()

    def origin(self, path: KeyPath, *, key: bool = False) -> Position | str:
        """Where `path` comes from: its place in the file, or the text of an override.

        Args:
            key: ask for the key's place and not the value's.

        Returns:
            For a path that is not there: the place of the nearest section above it.
        """
        override = self._override_at(path)
        if override is not None and not (key and path in self.positions):
            return override
        for depth in range(len(path), 0, -1):
            here = path[:depth]
            if here in self.positions:
                place = self.positions[here]
                return self.key_positions.get(here, place) if key or depth < len(path) else place
        return self.positions.get((), Position(1, 1))

    def is_given(self, path: KeyPath) -> bool:
        """Whether the file or an override gives a value at `path` itself."""
        return path in self.positions or self.is_overridden(path)

    def is_overridden(self, path: KeyPath) -> bool:
        """Whether an override gives the value at `path`, what is around it, or a part of it."""
        return self._override_at(path) is not None

    def _override_at(self, path: KeyPath) -> str | None:
        for target, text in reversed(self.overrides):
            shared = min(len(target), len(path))
            if target[:shared] == path[:shared]:
                return text
        return None


class SpecLoader(getattr(yaml, "CSafeLoader", yaml.SafeLoader)):  # type: ignore[misc]
    """PyYAML's safe loader (libyaml's where present) with the scalar rules of this module."""

    yaml_implicit_resolvers: dict[str, list[tuple[str, re.Pattern[str]]]] = {}  # noqa: RUF012


class SpecDumper(yaml.SafeDumper):
    """Writes what both SpecLoader and plain YAML 1.1 readers read back as the same value."""

    yaml_implicit_resolvers = {  # noqa: RUF012
        first: list(rules) for first, rules in yaml.SafeDumper.yaml_implicit_resolvers.items()
    }

    def represent_mapping(self, tag: str, mapping: Any, _: bool | None = None) -> Any:
        return super().represent_mapping(tag, mapping, flow_style=False)  # one key per line

    def increase_indent(self, flow: bool = False, indentless: bool = False) -> None:  # noqa: ARG002
        super().increase_indent(flow, False)  # lists stand to the right of their key


_FLOAT = re.compile(
    r"^[-+]?(\.[0-9][0-9_]*|[0-9][0-9_]*(\.[0-9_]*)?)([eE][-+]?[0-9]+)?$|^[-+]?\.(inf|Inf|INF)$"
    r"|^\.(nan|NaN|NAN)$"
)
_SCALARS: list[tuple[str, str, str]] = [
    ("bool", r"^(yes|Yes|YES|no|No|NO|true|True|TRUE|false|False|FALSE|on|On|ON|off|Off|OFF)$",
     "yYnNtTfFoO"),
    ("int", r"^[-+]?(0|[1-9][0-9_]*|0x[0-9a-fA-F]+)$", "-+0123456789"),
    ("null", r"^(~|null|Null|NULL|)$", "~nN"),
    ("merge", r"^(<<)$", "<"),
]  # fmt: skip
for _tag, _pattern, _first in _SCALARS:
    SpecLoader.add_implicit_resolver(
        f"tag:yaml.org,2002:{_tag}", re.compile(_pattern), [*_first, *([""] * (_tag == "null"))]
    )
# Digits with a leading zero are neither an int here nor a float: 010 stays text.
_NUMBER = re.compile(rf"^(?![-+]?0[0-9_]+$)(?:{_FLOAT.pattern})")
for _class in (SpecLoader, SpecDumper):
    _class.add_implicit_resolver("tag:yaml.org,2002:float", _NUMBER, list("-+.0123456789"))


def load_yaml(path: Path) -> YamlSource:
    """Read one YAML file.

    Raises:
        RequestError: it cannot be read, is not YAML, or its top level is not `key: value` lines.
    """
    try:
        text = path.read_text(encoding="utf-8-sig")
    except FileNotFoundError:
        raise RequestError(f"{path}: no such file") from None
    except UnicodeDecodeError as error:
        raise RequestError(f"{path}: not UTF-8 text (byte {error.start})") from None
    except OSError as error:
        raise RequestError(f"{path}: cannot be read: {error.strerror}") from None
    return parse_yaml(text, path)


def parse_yaml(text: str, path: Path) -> YamlSource:
    """`load_yaml` for text that is already here; `path` is only named in messages."""
    reader = _Reader(str(path))
    data = reader.read(text)
    if data is None:
        data = {}
    if not isinstance(data, dict):
        raise RequestError(f"{path}:1:1: found {show(data)}; allowed: `key: value` lines")
    return YamlSource(path, data, reader.positions, reader.key_positions)


def parse_value(text: str) -> Any:
    """The YAML value that `text` stands for, as written behind `key=` on a command line.

    Raises:
        RequestError: `text` is not YAML.
    """
    try:
        value = _Reader("").read(text)
    except RequestError as error:
        reason = str(error).lstrip(":0123456789 ")  # a position means little in one value
        raise RequestError(f"value {text!r}: {reason}") from None
    # A `#` starts a YAML comment; on a command line it is part of the value.
    return text if value is None and text.lstrip().startswith("#") else value


def to_yaml(data: dict[str, Any]) -> str:
    """Plain data as YAML text that reads back the same here and in other YAML readers."""
    text: str = yaml.dump(
        data,
        Dumper=SpecDumper,
        sort_keys=False,
        default_flow_style=None,
        width=100,
        allow_unicode=True,
    )
    return text


class _Reader:
    """Builds data from YAML nodes and notes the position of each on the way."""

    def __init__(self, label: str) -> None:
        self.label = label
        self.positions: dict[KeyPath, Position] = {}
        self.key_positions: dict[KeyPath, Position] = {}
        self._open: set[int] = set()
        self._loader: Any = None

    def read(self, text: str) -> Any:
        try:
            self._loader = SpecLoader(text)
            node = self._loader.get_single_node()
            return None if node is None else self._build(node, ())
        except yaml.MarkedYAMLError as error:
            mark = error.problem_mark or error.context_mark
            place = f":{mark.line + 1}:{mark.column + 1}" if mark else ""
            reason = error.problem or error.context or "cannot be read"
            raise RequestError(f"{self.label}{place}: not valid YAML: {reason}") from None
        except (yaml.YAMLError, ValueError) as error:
            raise RequestError(f"{self.label}: not valid YAML: {error}") from None
        except RecursionError:
            raise RequestError(f"{self.label}: sections in sections, too deep to read") from None
        finally:
            if self._loader is not None:
                self._loader.dispose()

    def _build(self, node: Node, path: KeyPath) -> Any:
        self.positions[path] = _position(node)
        if len(self.positions) > MAX_VALUES:
            raise self._error(node, f"unfolds to more than {MAX_VALUES} values")
        if isinstance(node, yaml.ScalarNode):
            return self._loader.construct_object(node)
        if id(node) in self._open:
            raise self._error(node, "an alias that contains itself")
        if node.tag not in ("tag:yaml.org,2002:map", "tag:yaml.org,2002:seq"):
            raise self._error(node, f"the tag {node.tag} is not allowed here")
        self._open.add(id(node))
        try:
            if isinstance(node, yaml.SequenceNode):
                return self._list(node, path)
            assert isinstance(node, yaml.MappingNode)
            return self._mapping(node, path)
        finally:
            self._open.discard(id(node))

    def _list(self, node: SequenceNode, path: KeyPath) -> list[Any]:
        return [self._build(item, (*path, index)) for index, item in enumerate(node.value)]

    def _mapping(self, node: MappingNode, path: KeyPath) -> dict[str, Any]:
        seen: dict[str, Position] = {}
        for key, _ in node.value:
            if not isinstance(key, yaml.ScalarNode):
                raise self._error(key, "a key must be text")
            if key.value in seen:
                first = seen[key.value]
                raise self._error(
                    key, f"key {key.value!r} is given twice (first at line {first.line})"
                )
            seen[key.value] = _position(key)
        self._loader.flatten_mapping(node)  # `<<: *alias`; keys written out come after and win
        data = {}
        for key, value in node.value:
            here = (*path, key.value)
            self.key_positions[here] = _position(key)
            data[key.value] = self._build(value, here)
        return data

    def _error(self, node: Node, reason: str) -> RequestError:
        line, column = _position(node)
        return RequestError(f"{self.label}:{line}:{column}: {reason}")


def _position(node: Node) -> Position:
    return Position(node.start_mark.line + 1, node.start_mark.column + 1)


def dotted(path: KeyPath) -> str:
    """`("a", "b", 0, "c")` as `a.b[0].c`; a part `[]` stands for any position."""
    text = ""
    for part in path:
        if isinstance(part, int):
            text += f"[{part}]"
        else:
            text += f".{part}" if text and part != "[]" else part
    return text


def show(value: Any, limit: int = 60) -> str:
    """`value` as a message shows it: as YAML would write it, on one line, cut at `limit`."""
    if isinstance(value, dict):
        text = f"a section with {', '.join(map(str, value))}" if value else "{}"
    elif isinstance(value, list):
        text = "[" + ", ".join(show(item) for item in value) + "]"
    elif value is None or isinstance(value, bool):
        text = {None: "null", True: "true", False: "false"}[value]
    else:
        text = repr(value)
    return text if len(text) <= limit else text[: limit - 1] + "…"
