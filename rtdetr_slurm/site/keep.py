"""Writing environment variables into a site profile; all else in it stays, comments too."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from itertools import count
from pathlib import Path
from typing import Any

import yaml

from rtdetr_slurm.errors import RequestError, SiteError, explained
from rtdetr_slurm.files import PRIVATE_FILE, write_atomic, write_new
from rtdetr_slurm.model_check import check_model
from rtdetr_slurm.site.profile import Site
from rtdetr_slurm.yaml_source import SpecLoader, parse_yaml

_HEAD = "# Kept by `rtdetr-slurm doctor --keep`: with these the ranks of a job found one another.\n"


def keep_env(path: Path, settings: Mapping[str, str]) -> Path | None:
    """Set variables under `env` of a profile; it is made where there is none.

    Returns:
        The copy of the file as it was; None where there was none.

    Raises:
        SiteError: the file cannot be written, or is written in a way that this cannot change; the
            message says what to add by hand.
    """
    try:
        before = path.read_text(encoding="utf-8") if path.exists() else ""
        after = _checked(before, settings, path)
        copy = _copied(path, before) if before else None
        path.parent.mkdir(parents=True, exist_ok=True)
        write_atomic(path, after, mode=path.stat().st_mode & 0o777 if before else PRIVATE_FILE)
    except (OSError, UnicodeDecodeError, RequestError) as error:
        reason = explained(error) if isinstance(error, OSError) else error
        raise SiteError(f"{path} is left as it is: {reason}; {_by_hand(settings)}") from error
    return copy


def with_env(text: str, settings: Mapping[str, str]) -> str:
    """The text of a profile with these variables set under `env`.

    Where it is written in a way that is not foreseen, the result is another profile than the one
    that is meant: who uses it must compare.
    """
    lines = text.splitlines(keepends=True)
    if lines and not lines[-1].endswith("\n"):
        lines[-1] += "\n"
    new = dict(settings)
    for name, node in _given(_env_node(text)).items():
        if name in new and node.start_mark.line == node.end_mark.line:
            line, first, last = node.start_mark.line, node.start_mark.column, node.end_mark.column
            lines[line] = lines[line][:first] + json.dumps(new.pop(name)) + lines[line][last:]
    if new:
        # Replacing keeps to one line, so the places of all other lines are as they were.
        _add(lines, _env_node("".join(lines)), new)
    return "".join(lines)


def _add(lines: list[str], env: yaml.Node | None, new: Mapping[str, str]) -> None:
    pairs = [f"{name}: {json.dumps(value)}" for name, value in new.items()]
    if isinstance(env, yaml.CollectionNode) and env.flow_style:
        line, column = env.end_mark.line, env.end_mark.column - 1
        joint = ", " if env.value else ""
        lines[line] = lines[line][:column] + joint + ", ".join(pairs) + lines[line][column:]
    elif isinstance(env, yaml.CollectionNode) and env.value:
        dash = "- " if isinstance(env, yaml.SequenceNode) else ""
        indent = " " * env.start_mark.column
        place = _last_line(env) + 1
        lines[place:place] = [f"{indent}{dash}{pair}\n" for pair in pairs]
    else:
        if not any(re.match(r"env\s*:", line) for line in lines):
            lines += ["\n", _HEAD, "env:\n"]
        place = next(n for n, line in enumerate(lines) if re.match(r"env\s*:", line))
        lines[place] = re.sub(r"^env\s*:[ \t]*(null|~)?", "env:", lines[place])
        lines[place + 1 : place + 1] = [f"  - {pair}\n" for pair in pairs]


def _env_node(text: str) -> yaml.Node | None:
    """The value of `env` at the top level."""
    root = yaml.compose(text, Loader=SpecLoader)
    pairs = root.value if isinstance(root, yaml.MappingNode) else []
    return next((value for key, value in pairs if key.value == "env"), None)


def _given(env: yaml.Node | None) -> dict[str, yaml.Node]:
    """The values that are set already, by name."""
    maps = env.value if isinstance(env, yaml.SequenceNode) else [env]
    return {
        key.value: value
        for one in maps
        if isinstance(one, yaml.MappingNode)
        for key, value in one.value
    }


def _last_line(node: yaml.Node) -> int:
    """The line of the last word in it; its own end is where the next token begins."""
    while isinstance(node, yaml.CollectionNode) and node.value:
        last = node.value[-1]
        node = last[1] if isinstance(last, tuple) else last
    return int(node.end_mark.line)


def _checked(before: str, settings: Mapping[str, str], path: Path) -> str:
    """`with_env`, and nothing else changed.

    Raises:
        RequestError: that cannot be done.
    """
    old = parse_yaml(before, path)
    try:
        after = with_env(before, settings)
        new = parse_yaml(after, path)
    except (yaml.YAMLError, RequestError) as error:
        raise RequestError("env is written there in a way that this cannot change") from error
    wanted = {**check_model(Site, old).env, **settings}
    rest: list[dict[str, Any]] = [
        {key: value for key, value in source.data.items() if key != "env"} for source in (old, new)
    ]
    if check_model(Site, new).env != wanted or rest[0] != rest[1]:
        raise RequestError("env is written there in a way that this cannot change")
    return after


def _copied(path: Path, text: str) -> Path:
    for number in count(1):
        copy = path.with_name(f"{path.name}.bak-{number}")
        try:
            write_new(copy, text)
            return copy
        except FileExistsError:
            continue
    raise AssertionError("there is always a further number")


def _by_hand(settings: Mapping[str, str]) -> str:
    pairs = ", ".join(f"{name}: {json.dumps(value)}" for name, value in settings.items())
    return f"add under env by hand: {pairs}"
