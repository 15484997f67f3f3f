"""Which files and folders a resolved spec names, by what its fields declare about themselves."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, Literal

from rtdetr_slurm.contract import HUGGING_FACE_WEIGHTS
from rtdetr_slurm.places import expanded, refusal, with_home
from rtdetr_slurm.resolved_spec import FILE_URI, is_uri, local_path
from rtdetr_slurm.slurm.names import has_control_character
from rtdetr_slurm.spec.dataset import LIST_SUFFIX
from rtdetr_slurm.spec.experiment import ExperimentConfig
from rtdetr_slurm.spec.fields import FieldRef, walk
from rtdetr_slurm.yaml_source import KeyPath

_VARIABLE = re.compile(r"\$[A-Za-z_]\w*")
"""Not `${…}`: that is a reference, or escaped and meant as it stands."""
_PLACEHOLDER = re.compile(r"(?<!\$)\{\s*[A-Za-z_][\w .:-]*\}")
"""`{train_job_id}`, as TAO's examples and templates write what somebody else is to fill in."""


def path_problem(text: str) -> str | None:
    """What is wrong with a path of a spec, whatever is there; None where nothing is."""
    if has_control_character(text):
        return "allowed: a path without line breaks and other control characters"
    if variable := _VARIABLE.search(text):
        return f"a spec does not fill in {variable[0]}; allowed: the path itself, or ~ for home"
    if placeholder := _PLACEHOLDER.search(text):
        return (
            f"nothing fills in {placeholder[0]}; allowed: the path itself; for what a run or a "
            "stage before leaves, leave the field empty and name the run in job.parent (--parent "
            "RUN), or let this action follow in job.then"
        )
    path = with_home(text.removeprefix(FILE_URI[:-1]))
    if path is None:
        return "there is no such user; allowed: ~ for the own home folder, or a path"
    return refusal(path) if path.startswith("/") else None


def absolute_paths(resolved: Mapping[str, Any], cwd: Path) -> dict[str, Any]:
    """A copy of a resolved spec in which every relative path is taken from `cwd`.

    `~` is the home folder, and `file:///…` of data the path in it. Empty values, TAO's `???` and
    other addresses stay as they are.
    """

    def absolute(value: Any) -> Any:
        return os.path.normpath(cwd / expanded(value)) if _is_path(value) else value

    def plain(value: Any) -> Any:
        path = local_path(value) if is_uri(value) else None
        return absolute(value) if path is None else str(path)

    result: Any = resolved
    for ref in _path_fields():
        result = _mapped(result, ref.path, plain if ref.path[0] == "dataset" else absolute)
    return dict(result)


def read_paths(resolved: Mapping[str, Any], action: str) -> list[str]:
    """The files and folders that the action reads, in the order of the spec, each once.

    Of a list of images, and of Hugging Face's weights, it is the folder that they are in, where the
    images are, or what says of which detector they are.
    """
    found = [
        str(Path(value).parent) if _needs_its_folder(ref, value) else value
        for ref, _, value in fields_of(resolved, action, "read")
        if _is_path(value)
    ]
    return list(dict.fromkeys(found))


def fields_of(
    resolved: Mapping[str, Any], action: str, *kinds: Literal["read", "new", "update"]
) -> Iterator[tuple[FieldRef, KeyPath, Any]]:
    """Every value of path fields of some kinds that are meant for the action, with its place."""
    for ref in _path_fields():
        if ref.extra("x-path") in kinds and action in ref.used_by:
            yield from ((ref, at, value) for at, value in _values(resolved, ref.path))


def written_paths(resolved: Mapping[str, Any], action: str) -> list[str]:
    """The files and folders that the spec names for the action to write."""
    return [
        value
        for ref in _path_fields()
        if ref.extra("x-path") in ("write", "new", "update")
        and action in ref.used_by
        and len(ref.path) > 1
        for _, value in _values(resolved, ref.path)
        if _is_path(value)
    ]


def _needs_its_folder(ref: FieldRef, value: str) -> bool:
    holds = ref.extra("x-holds")
    if holds == "weights":
        return Path(value).name in HUGGING_FACE_WEIGHTS
    return holds == "images" and value.lower().endswith(LIST_SUFFIX)


def _path_fields() -> Iterator[FieldRef]:
    return (ref for ref in walk(ExperimentConfig) if ref.extra("x-path"))


def _is_path(value: Any) -> bool:
    return isinstance(value, str) and value not in ("", "???") and not is_uri(value)


def _mapped(node: Any, path: KeyPath, function: Callable[[Any], Any]) -> Any:
    """A copy of `node` with `function` applied to the value, or the list of values, at `path`."""
    if isinstance(node, list) and (not path or path[0] == "[]"):
        return [_mapped(item, path[1:], function) for item in node]
    if not path:
        return function(node)
    key = str(path[0])
    if isinstance(node, Mapping) and key in node:
        return {**node, key: _mapped(node[key], path[1:], function)}
    return node


def _values(node: Any, path: KeyPath, at: KeyPath = ()) -> Iterator[tuple[KeyPath, Any]]:
    """The value, or each of the list of values, at `path`, with the place it really has."""
    if isinstance(node, list) and (not path or path[0] == "[]"):
        for index, item in enumerate(node):
            yield from _values(item, path[1:], (*at, index))
    elif not path:
        yield at, node
    elif isinstance(node, Mapping) and path[0] in node:
        yield from _values(node[path[0]], path[1:], (*at, path[0]))
