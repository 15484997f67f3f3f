"""`${a.b}`: a value that another field gives, as OmegaConf fills it in for TAO."""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import cache
from typing import Any

from rtdetr_slurm.errors import near
from rtdetr_slurm.model_check import NEAR, Problem
from rtdetr_slurm.spec.experiment import SpecFile
from rtdetr_slurm.spec.fields import FieldRef, Section, walk
from rtdetr_slurm.spec.overrides import ALIASES, KEY, MISSING, parse_key
from rtdetr_slurm.yaml_source import KeyPath, dotted, show

_REFERENCE = re.compile(r"(?P<escape>\\)?\$\{(?P<name>[^${}]*)\}")
_WRITE_IT = "write the value, or the whole name of another field, such as ${results_dir}"


@dataclass(frozen=True)
class Filled:
    """A spec's data with every reference filled in.

    Attributes:
        data: without the values that could not be had.
        problems: one for each reference that is wrong.
        broken: every value that is left out for one of them.
    """

    data: dict[str, Any]
    problems: tuple[Problem, ...]
    broken: tuple[KeyPath, ...]


def fill_references(data: dict[str, Any]) -> Filled:
    """Fill in the references of a spec.

    A value that is a reference and nothing else becomes what the other field holds, whatever its
    type, with the field's default where the spec does not give it. Inside text it becomes text.
    """
    filler = _Filler(data)
    filled = _without_broken(filler.fill(data, ()))
    broken = tuple(p for p, value in filler.done.items() if _without_broken(value) is _BROKEN)
    return Filled(filled, tuple(filler.problems), broken)


_BROKEN = object()
"""Stands for a value that is not to be had; the problem is noted where it arose."""


class _Wrong(Exception):
    """A reference that cannot be filled in, and why."""


class _Filler:
    def __init__(self, data: dict[str, Any]) -> None:
        self.data = data
        self.problems: list[Problem] = []
        self.done: dict[KeyPath, Any] = {}
        self.open: list[KeyPath] = []

    def fill(self, node: Any, path: KeyPath) -> Any:
        """`node`, the value at `path`, with everything inside filled in."""
        if isinstance(node, dict):
            return {key: self.fill(value, (*path, key)) for key, value in node.items()}
        if isinstance(node, list):
            return [self.fill(item, (*path, index)) for index, item in enumerate(node)]
        return self.fill_text(node, path) if _has_reference(node) else node

    def fill_text(self, text: str, path: KeyPath) -> Any:
        if path in self.open:
            circle = [*self.open[self.open.index(path) :], path]
            raise _Wrong(f"it leads back to itself: {' → '.join(map(dotted, circle))}")
        if path not in self.done:
            self.open.append(path)
            try:
                if path == ("job", "action"):
                    raise _Wrong("which action it is must be known first: write its name")
                self.done[path] = self.replace(text)
            except _Wrong as error:
                self.done[path] = _BROKEN
                self.problems.append(Problem(path, f"found {show(text)}; {error}"))
            self.open.pop()
        return self.done[path]

    def replace(self, text: str) -> Any:
        if "${" in _REFERENCE.sub("", text):
            raise _Wrong(f"no whole reference, or one inside another; {_WRITE_IT}")
        whole = _REFERENCE.fullmatch(text)
        if whole and not whole["escape"]:
            return self.look_up(whole["name"])
        parts: list[str] = []
        end = 0
        for match in _REFERENCE.finditer(text):
            parts.append(text[end : match.start()])
            end = match.end()
            if match["escape"]:
                parts.append(match[0].removeprefix("\\"))
                continue
            value = self.look_up(match["name"])
            if value is _BROKEN:
                return _BROKEN
            parts.append(_as_text(value, match["name"]))
        return "".join([*parts, text[end:]])

    def look_up(self, name: str) -> Any:
        """What the field called `name` holds.

        Raises:
            _Wrong: there is no such field, or the name is none.
        """
        if ":" in name:
            raise _Wrong(f"a resolver (${{{name}}}) is not run here; {_WRITE_IT}")
        if name.startswith("."):
            raise _Wrong(f"a reference by position (${{{name}}}) is not followed; {_WRITE_IT}")
        if not KEY.fullmatch(name):
            raise _Wrong(f"'{name}' is not the name of a field; {_WRITE_IT}")
        path = parse_key(name)
        path = ALIASES.get(path, path)
        node: Any = self.data
        for depth, part in enumerate(path):
            if _has_reference(node):
                node = self.fill_text(node, path[:depth])
            if node is _BROKEN:
                return _BROKEN
            if isinstance(node, dict) and node.get(str(part), MISSING) != MISSING:
                node = node[str(part)]
            elif isinstance(node, list) and isinstance(part, int):
                if part >= len(node):
                    found = f"{dotted(path[:depth])} has {len(node)} entries"
                    raise _Wrong(f"there is no {dotted(path[: depth + 1])}; {found}")
                node = node[part]
            else:
                return _default(path)
        return self.fill(node, path)


@cache
def _fields() -> dict[KeyPath, FieldRef]:
    return {ref.path: ref for ref in walk(SpecFile)}


def _default(path: KeyPath) -> Any:
    """What a spec holds at `path` when it says nothing.

    Raises:
        _Wrong: there is no such field.
    """
    ref = _fields().get(tuple("[]" if isinstance(part, int) else part for part in path))
    if ref is not None:
        return ref.default.model_dump() if isinstance(ref.default, Section) else ref.default
    *above, last = path
    if above and isinstance(last, int):
        values = _default(tuple(above))
        if isinstance(values, list) and last < len(values):
            return values[last]
    names = [dotted(path) for path in _fields()]
    raise _Wrong(f"there is no field {dotted(path)}{near(dotted(path), names, NEAR)}")


def _as_text(value: Any, name: str) -> str:
    if isinstance(value, dict | list):
        raise _Wrong(f"{name} is {show(value)}, which cannot stand inside text")
    if value in ("", None):
        raise _Wrong(f"{name} is empty, and cannot stand inside text; give it, or {_WRITE_IT}")
    return str(value)


def _has_reference(value: Any) -> bool:
    return isinstance(value, str) and "${" in value


def _without_broken(node: Any) -> Any:
    """`node` without broken values; a list in which one is broken is broken itself."""
    if isinstance(node, dict):
        kept = {key: _without_broken(value) for key, value in node.items()}
        return {key: value for key, value in kept.items() if value is not _BROKEN}
    if isinstance(node, list):
        kept_items = [_without_broken(item) for item in node]
        return _BROKEN if any(item is _BROKEN for item in kept_items) else kept_items
    return node
