"""Values set in the text of a YAML file; all else in it stays, comments too."""

from __future__ import annotations

import copy
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

from rtdetr_slurm.errors import RequestError
from rtdetr_slurm.yaml_source import KeyPath, SpecLoader, dotted, parse_yaml


def with_values(text: str, values: Mapping[KeyPath, Any], path: Path) -> str:
    """The text with these values: numbers, text, or lists of such, at keys within keys.

    What is there is written over, what is not is added at the end of its section; the entries of a
    list that has a line for each keep their lines, so that their order may be another one.

    Args:
        path: of the file, for messages.

    Raises:
        RequestError: it is written in a way that this cannot change.
    """
    wanted = copy.deepcopy(parse_yaml(text, path).data)
    after = text
    try:
        for key, value in values.items():
            after = _with_value(after, key, value)
            _set(wanted, key, value)
        found = parse_yaml(after, path).data
    except (yaml.YAMLError, RequestError, AttributeError, TypeError):
        found = None
    if found is None or _plain(found, values) != _plain(wanted, values):
        by_hand = ", ".join(f"{dotted(key)}: {json.dumps(v)}" for key, v in values.items())
        raise RequestError(
            f"{path} is left as it is, for it is written in a way that this cannot change; set by "
            f"hand: {by_hand}"
        )
    return after


def _with_value(text: str, key: KeyPath, value: Any) -> str:
    node: yaml.Node | None = yaml.compose(text, Loader=SpecLoader)
    for depth, name in enumerate(key):
        below = _child(node, name)
        if below is None:
            return _added(text, node, key[depth:], value)
        node = below
    if node is None:
        return text
    if isinstance(node, yaml.SequenceNode) and not node.flow_style and isinstance(value, list):
        return _with_entries(text, node, value)
    start, end = node.start_mark.index, _end(node)
    gap = " " if start == end else ""  # there is only the key
    return f"{text[:start]}{gap}{json.dumps(value)}{text[end:]}"


def _with_entries(text: str, node: yaml.SequenceNode, value: list[Any]) -> str:
    """A list of which each entry has a line: those that stay keep theirs."""
    lines = text.splitlines(keepends=True)
    entries = {yaml.load(one.value, SpecLoader): one.start_mark.line for one in node.value}
    indent = " " * node.start_mark.column
    last = max(entries.values())
    more = [f"{indent}- {json.dumps(one)}{_line_end(text)}" for one in value if one not in entries]
    if more and not lines[last].endswith(("\n", "\r")):
        lines[last] += _line_end(text)
    lines[last + 1 : last + 1] = more
    gone = {line for one, line in entries.items() if one not in value}
    return "".join(line for number, line in enumerate(lines) if number not in gone)


def _added(text: str, section: yaml.Node | None, key: KeyPath, value: Any) -> str:
    """With a key that its section does not have yet."""
    if isinstance(section, yaml.MappingNode) and section.flow_style:
        at = _end(section) - 1
        joint = ", " if section.value else ""
        return f"{text[:at]}{joint}{_flow(key, value)}{text[at:]}"
    end = _line_end(text)
    at = len(text) if section is None else text.find("\n", _end(section)) + 1 or len(text)
    indent = section.start_mark.column if isinstance(section, yaml.MappingNode) else 0
    lines = [
        f"{' ' * (indent + 2 * depth)}{name}:" + ("" if depth + 1 < len(key) else " ")
        for depth, name in enumerate(key)
    ]
    lines[-1] += json.dumps(value)
    before = text[:at] + ("" if at == 0 or text[:at].endswith("\n") else end)
    return before + "".join(line + end for line in lines) + text[at:]


def _flow(key: KeyPath, value: Any) -> str:
    inner = json.dumps(value)
    for depth, name in enumerate(reversed(key)):
        inner = f"{name}: {inner}" if not depth else f"{name}: {{{inner}}}"
    return inner


def _child(node: yaml.Node | None, name: str | int) -> yaml.Node | None:
    pairs = node.value if isinstance(node, yaml.MappingNode) else []
    return next((value for key, value in pairs if key.value == name), None)


def _end(node: yaml.Node) -> int:
    """Where the last word in it ends; the end of a block is where the next token begins."""
    while isinstance(node, yaml.CollectionNode) and not node.flow_style and node.value:
        last = node.value[-1]
        node = last[1] if isinstance(last, tuple) else last
    return int(node.end_mark.index)


def _line_end(text: str) -> str:
    return "\r\n" if "\r\n" in text else "\n"


def _set(data: dict[str, Any], key: KeyPath, value: Any) -> None:
    for name in key[:-1]:
        data = data.setdefault(str(name), {})
    data[str(key[-1])] = value


def _plain(data: Mapping[str, Any], values: Mapping[KeyPath, Any]) -> dict[str, Any]:
    """The same, with the lists among the values in order."""
    result = copy.deepcopy(dict(data))
    for key, value in values.items():
        node: Any = result
        for name in key:
            node = node[name]
        if isinstance(value, list):
            _set(result, key, sorted(node, key=str))
    return result
