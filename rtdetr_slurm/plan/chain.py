"""Which stages there are, what each waits for, and what fills its open fields. Pure."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from rtdetr_slurm.actions import Action, get_action, last_training
from rtdetr_slurm.errors import RequestError
from rtdetr_slurm.plan.model import STAGE_NAME, Dependency, Input, Origin
from rtdetr_slurm.resolved_spec import is_uri, value_at
from rtdetr_slurm.spec.experiment import ExperimentConfig
from rtdetr_slurm.spec.fields import walk
from rtdetr_slurm.yaml_source import dotted

if TYPE_CHECKING:
    from rtdetr_slurm.spec import LoadedSpec
    from rtdetr_slurm.spec.job import FollowUp


@dataclass(frozen=True)
class Parent:
    """The run that a submission continues.

    Attributes:
        origin: its stage that has, or will have, a checkpoint.
        ended: whether that stage has succeeded already; else it is waited for.
    """

    origin: Origin
    ended: bool


@dataclass(frozen=True)
class Position:
    """A stage's place in the chain.

    Attributes:
        follow_up: its entry in job.then; None for the spec's own action.
    """

    name: str
    action: str
    follow_up: FollowUp | None = None
    depends_on: tuple[Dependency, ...] = ()
    inputs: tuple[Input, ...] = ()


def chain(loaded: LoadedSpec, spec: Mapping[str, Any], parent: Parent | None) -> list[Position]:
    """The spec's own action and its follow-ups, in order.

    A follow-up waits for the stage that its inputs come from; one without such inputs waits for
    the stage before it.

    Raises:
        RequestError: two stages have one name, a name is none for a folder, or nothing comes from
            the parent.
    """
    first = _position(loaded.action, loaded.action, None, spec, [], parent)
    positions = [first]
    for entry in loaded.job.then:
        name = entry.name or entry.action
        if not STAGE_NAME.fullmatch(name):
            raise RequestError(
                f"job.then: found the name '{name}'; allowed: letters, digits, _ and -, beginning "
                "with a letter, and one dot before a further such word"
            )
        if any(position.name == name for position in positions):
            raise RequestError(
                f"job.then: there are two stages called '{name}'; give one of them a name of its "
                f"own: {{action: {entry.action}, name: {entry.action}-2}}"
            )
        positions.append(_position(name, entry.action, entry, spec, positions, parent))
    if parent is not None and not any(
        one.origin == parent.origin for position in positions for one in position.inputs
    ):
        raise RequestError(
            f"job.parent: no stage takes a checkpoint from {parent.origin}; leave it out, or leave "
            "the field that wants a checkpoint empty"
        )
    return positions


def _position(
    name: str,
    action: str,
    follow_up: FollowUp | None,
    spec: Mapping[str, Any],
    before: Sequence[Position],
    parent: Parent | None,
) -> Position:
    origin = _model_origin(before, parent)
    inputs = list(_inputs(get_action(action), spec, origin))
    depends_on = [
        Dependency(one.origin) for one in inputs if one.origin is not None and _waits(one, parent)
    ]
    if before and not depends_on:
        depends_on = [Dependency(Origin(before[-1].name))]
    return Position(name, action, follow_up, tuple(dict.fromkeys(depends_on)), tuple(inputs))


def _model_origin(before: Sequence[Position], parent: Parent | None) -> Origin | None:
    """The last stage before that trains, else the parent."""
    trained = last_training([position.action for position in before])
    if trained is not None:
        return Origin(before[trained].name)
    return None if parent is None else parent.origin


def _waits(one: Input, parent: Parent | None) -> bool:
    return parent is None or one.origin != parent.origin or not parent.ended


def _inputs(action: Action, spec: Mapping[str, Any], origin: Origin | None) -> Iterator[Input]:
    """What is filled in when the stage starts: its results folder, files that the spec names by
    address, and the model where the spec leaves that open."""
    yield Input(f"{action.section}.results_dir", "output_dir")
    for ref in walk(ExperimentConfig):
        if action.name not in ref.used_by:
            continue
        path, function = dotted(ref.path), ref.extra("x-inferred")
        value = value_at(spec, path)
        if ref.extra("x-path") == "read" and is_uri(value):
            yield Input(path, "fetch", uri=value)
        elif function is not None and origin is not None and not value:
            yield Input(path, function, origin)
