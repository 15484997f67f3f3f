"""What a run that continues another has from it: the architecture and the classes of its model."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from rtdetr_slurm.actions import ACTIONS
from rtdetr_slurm.model_check import Problem
from rtdetr_slurm.resolved_spec import value_at, with_value
from rtdetr_slurm.spec.experiment import ExperimentConfig
from rtdetr_slurm.spec.fields import FieldRef, walk
from rtdetr_slurm.spec.needs import parent_fills
from rtdetr_slurm.spec.overrides import MISSING
from rtdetr_slurm.yaml_source import KeyPath, dotted, show

_TEACHER = ("distill", "teacher")


def carry_over(
    data: Mapping[str, Any], action: str, parent: Mapping[str, Any], name: str
) -> tuple[dict[str, Any], list[str]]:
    """A spec's data in which what it leaves open is as in the spec of its parent run.

    Args:
        name: of the parent run.

    Returns:
        The data, and a note on what was taken over and is not the default anyway.
    """
    carried, taken = dict(data), []
    for path, ref, value in _carried(data, _actions(data, action), parent):
        if _is_open(data, path):
            carried = with_value(carried, dotted(path), value)
            taken += [f"{dotted(path)} {show(value)}"] if value != ref.default else []
    note = f"taken over from {name}, which job.parent continues: {', '.join(taken)}"
    return carried, [note] if taken else []


def contradictions(
    experiment: ExperimentConfig, actions: Sequence[str], parent: Mapping[str, Any], name: str
) -> Iterator[Problem]:
    """What the spec says otherwise than its parent run, which is called `name`."""
    own = experiment.model_dump()
    for path, ref, value in _carried(own, actions, parent):
        found = value_at(own, dotted(path))
        # A path is where the file is seen from; that there is one is what matters.
        same = bool(found) == bool(value) if ref.extra("x-path") else found == value
        if not same:
            yield Problem(
                path,
                f"found {show(found)}; {name}, which job.parent continues, has {show(value)}; "
                "allowed: the same, or nothing, which takes it over",
            )


def _carried(
    data: Mapping[str, Any], actions: Sequence[str], parent: Mapping[str, Any]
) -> Iterator[tuple[KeyPath, FieldRef, Any]]:
    """Where each value of the parent belongs that carries over, with the field it is of.

    The parent of a distillation is the teacher, whose architecture is not the student's.
    """
    taking = {action for index, action in enumerate(actions) if _takes(data, actions, index)}
    for ref in walk(ExperimentConfig):
        carrying = taking & {*(ref.extra("x-carried") or ())}
        if not carrying or ref.path[0] == _TEACHER[0] or not _has(parent, ref.path):
            continue
        value = value_at(parent, dotted(ref.path))
        in_model = ref.path[0] == "model"
        if in_model and "distill" in carrying:
            yield (*_TEACHER, *ref.path[1:]), ref, value
        if not in_model or carrying - {"distill"}:
            yield ref.path, ref, value


def _takes(data: Mapping[str, Any], actions: Sequence[str], index: int) -> bool:
    """Whether an action of a chain takes its model from the parent."""
    return any(
        parent_fills(ref, actions, index)
        and value_at(data, dotted(ref.path)) in ("", None, MISSING)
        for ref in walk(ExperimentConfig)
    )


def _actions(data: Mapping[str, Any], action: str) -> list[str]:
    """The chain as the data have it, which are not checked yet."""
    then = value_at(data, "job.then")
    entries = then if isinstance(then, list) else []
    names = [entry.get("action") if isinstance(entry, dict) else entry for entry in entries]
    return [action, *(name for name in names if isinstance(name, str) and name in ACTIONS)]


def _is_open(data: Mapping[str, Any], path: KeyPath) -> bool:
    """Whether nothing is given at `path`."""
    node: Any = data
    for part in path[:-1]:
        node = node.get(part)
        if node is None or node == MISSING:
            return True
        if not isinstance(node, dict):
            return False
    return bool(node.get(path[-1], MISSING) == MISSING)


def _has(data: Mapping[str, Any], path: KeyPath) -> bool:
    node: Any = data
    for part in path:
        if not isinstance(node, Mapping) or part not in node:
            return False
        node = node[part]
    return True
