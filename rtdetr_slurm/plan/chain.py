"""Which stages there are, what each waits for, and what fills its open fields. Pure."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rtdetr_slurm.actions import DEPLOY, MODEL_WORDS, Model, get_action
from rtdetr_slurm.contract import MODEL_FILES, Infer
from rtdetr_slurm.errors import RequestError
from rtdetr_slurm.plan.model import STAGE_NAME, Array, Dependency, Input, Origin
from rtdetr_slurm.plan.search import BASELINE, BEST, EVALUATE_BEST, Search
from rtdetr_slurm.plan.sources import staged_for
from rtdetr_slurm.plan.staging import STAGE, UPLOAD, Staging, Upload
from rtdetr_slurm.resolved_spec import is_remote, is_uri, value_at
from rtdetr_slurm.spec.experiment import ExperimentConfig
from rtdetr_slurm.spec.fields import as_asked, walk
from rtdetr_slurm.spec.needs import heeds_common_choice, taken_from, takes_checkpoint
from rtdetr_slurm.yaml_source import KeyPath, dotted

if TYPE_CHECKING:
    from rtdetr_slurm.spec import LoadedSpec
    from rtdetr_slurm.spec.job import FollowUp


OF_SEARCH = (BEST, EVALUATE_BEST, BASELINE)
STARTED_FROM = ("train.resume_training_checkpoint_path", "train.pretrained_model_path")
"""Fields with the weights of a whole detector that a training starts from, the first that is given
counts."""
_SCORED = "evaluate.checkpoint"


@dataclass(frozen=True)
class ParentStage:
    """A stage of the run that a submission continues.

    Attributes:
        leaves: the form of its model.
        ended: whether it has succeeded already; else it is waited for.
        target: the kind of GPU that its engine is for, where it is for one.
        problem: why nothing can be taken from it; None where something can.
    """

    origin: Origin
    leaves: Model
    ended: bool
    problem: str | None = None
    target: str | None = None


@dataclass(frozen=True)
class Parent:
    """The run that a submission continues.

    Attributes:
        name: as messages name it.
        stages: those that leave a model, in order.
        spec: that it ran, or runs, with.
        classes: that it was trained on, id to name.
    """

    name: str
    stages: Sequence[ParentStage]
    spec: Mapping[str, Any]
    classes: Mapping[int, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Searching:
    """That the spec's own training is a search.

    Attributes:
        workers: the array whose tasks train.
        evaluates: whether the best trial is scored once more.
        has_baseline: whether the weights that every trial starts from are scored, too.
    """

    search: Search
    workers: Array
    evaluates: bool = True
    has_baseline: bool = False


@dataclass(frozen=True)
class Position:
    """A stage's place in the chain.

    Attributes:
        follow_up: its entry in job.then; None for the spec's own action, and what belongs to it.
        target: the kind of GPU that it is for, of those that the site lists.
        searching: of the spec's own training, where that is a search, and of what finds its best.
        is_of_search: whether it is one that a search brings with it.
        best_of: the search that it finds the best trial of.
        staging: what it brings for the others.
        upload: where it puts what they leave.
    """

    name: str
    action: str
    follow_up: FollowUp | None = None
    target: str | None = None
    depends_on: tuple[Dependency, ...] = ()
    inputs: tuple[Input, ...] = ()
    searching: Searching | None = None
    is_of_search: bool = False
    best_of: str | None = None
    staging: Staging | None = None
    upload: Upload | None = None


def chain(
    loaded: LoadedSpec,
    spec: Mapping[str, Any],
    parent: Parent | None,
    targets: Sequence[str] = (),
    searching: Searching | None = None,
    staging: Staging | None = None,
    upload: Upload | None = None,
) -> list[Position]:
    """The spec's own action and its follow-ups, in order; a deploy action once for each target.

    A follow-up waits for the stage that its inputs come from; one without such inputs waits for
    the stage before it. What follows on a search follows on its best trial.

    Args:
        targets: the kinds of GPU to deploy on; none where the site lists none.
        searching: that the first of them, a training, is a search.
        staging: what is to be brought before any of them begins that reads it.
        upload: where a copy of all goes in the end, however they have ended.

    Raises:
        RequestError: two stages have one name, a name is none for a folder, or the parent has not
            what is taken from it, or nothing is.
    """
    positions: list[Position] = []
    if staging is not None:
        positions.append(Position(STAGE, loaded.action, staging=staging))
    line: list[Position] = []  # what a later stage can follow on
    for index, entry, target in _stages(loaded, targets):
        name = loaded.action if entry is None else entry.name or entry.action
        name = name if target is None else f"{name}.{target}"
        action = loaded.action if entry is None else entry.action
        if not STAGE_NAME.fullmatch(name):
            raise RequestError(
                f"job.then: found the name '{name}'; allowed: letters, digits, _ and -, beginning "
                "with a letter, and one dot before a further such word"
            )
        if any(position.name == name for position in positions):
            raise RequestError(
                f"job.then: there are two stages called '{name}'; give one of them a name of its "
                f"own: {{action: {action}, name: {action}-2}}"
            )
        inputs = tuple(_inputs(loaded, spec, index, target, line, parent, staging))
        depends_on = _dependencies(inputs, line, parent)
        position = Position(name, action, entry, target, depends_on, inputs)
        if searching is not None and index == 0:
            position = replace(position, searching=searching)
            best, *scored = _of_search(position, searching, spec, parent, staging)
            positions += [position, best, *scored]
            line = [position, best]
        else:
            positions.append(position)
            line.append(position)
    if parent is not None and not any(
        one.origin and one.origin.run for position in positions for one in position.inputs
    ):
        raise RequestError(
            f"job.parent: no stage takes anything from {parent.name}; leave it out, or leave the "
            "field that wants a model empty"
        )
    if upload is not None:
        after = tuple(Dependency(Origin(one.name), "afterany") for one in positions)
        positions.append(Position(UPLOAD, loaded.action, depends_on=after, upload=upload))
    return positions


def _of_search(
    searched: Position,
    searching: Searching,
    spec: Mapping[str, Any],
    parent: Parent | None,
    staging: Staging | None,
) -> Iterator[Position]:
    """What a search brings with it: first the stage that finds its best trial, then those that
    score that and what every trial starts from."""
    staged = [one for one in searched.depends_on if one.on == Origin(STAGE)]
    yield Position(
        BEST,
        searched.action,
        depends_on=(Dependency(Origin(searched.name), "afterany"), *staged),
        searching=searching,
        is_of_search=True,
        best_of=searched.name,
    )
    scored = []
    if searching.evaluates:
        scored.append((EVALUATE_BEST, Input(_SCORED, Infer.PARENT_MODEL, Origin(BEST))))
    if searching.has_baseline:
        scored.append((BASELINE, _start_of(searched, spec)))
    for name, model in scored:
        inputs = (
            Input("evaluate.results_dir", Infer.OUTPUT_DIR),
            *(one for one in _staged(spec, "evaluate", staging) if one.field != _SCORED),
            model,
        )
        depends_on = _dependencies(inputs, (), parent)
        yield Position(name, "evaluate", depends_on=depends_on, inputs=inputs, is_of_search=True)


def _start_of(searched: Position, spec: Mapping[str, Any]) -> Input:
    """The weights that a training starts from, as what is to be scored."""
    for one in searched.inputs:
        if one.function == Infer.RESUME_MODEL:
            return Input(_SCORED, Infer.PARENT_MODEL, one.origin, choice=one.choice or "last")
    named = next(value for name in STARTED_FROM if (value := value_at(spec, name)))
    if is_remote(named):
        return Input(_SCORED, Infer.FETCH, Origin(STAGE), uri=named)
    return Input(_SCORED, Infer.FETCH, uri=named if is_uri(named) else Path(named).as_uri())


def _stages(
    loaded: LoadedSpec, targets: Sequence[str]
) -> Iterator[tuple[int, FollowUp | None, str | None]]:
    """Index in the chain, entry and target of each stage."""
    for index, entry in enumerate((None, *loaded.job.then)):
        deploys = get_action(loaded.actions[index]).program == DEPLOY
        for target in targets if deploys and targets else (None,):
            yield index, entry, target


def _inputs(
    loaded: LoadedSpec,
    spec: Mapping[str, Any],
    index: int,
    target: str | None,
    before: Sequence[Position],
    parent: Parent | None,
    staging: Staging | None,
) -> Iterator[Input]:
    """What is filled in when the stage starts: its results folder, what the spec names by address
    or in archives, and what it leaves open to an inference function."""
    action = get_action(loaded.actions[index])
    own = loaded.job.then[index - 1].checkpoint if index else None
    parent_name = loaded.job.parent
    yield Input(f"{action.section}.results_dir", Infer.OUTPUT_DIR)
    yield from _staged(spec, action.name, staging)
    for ref in walk(ExperimentConfig):
        if action.name not in ref.used_by:
            continue
        ref = as_asked(ref, partial(_beside, spec, ref.path))
        path, function = dotted(ref.path), ref.inferred(action.name)
        value = value_at(spec, path)
        if ref.extra("x-path") == "read" and is_uri(value) and not is_remote(value):
            yield Input(path, Infer.FETCH, uri=value)
        elif value or function is None:
            continue
        elif function in MODEL_FILES:
            yield Input(path, function)
        elif taken_from(ref, loaded.actions, index, parent_name) is not None:
            origin, choice = _origin(ref.takes, path, target, before, parent), own
            if choice is None and heeds_common_choice(ref, loaded.actions, index, parent_name):
                choice = loaded.job.checkpoint
            yield Input(path, function, origin, choice=choice if takes_checkpoint(ref) else None)


def _staged(spec: Mapping[str, Any], action: str, staging: Staging | None) -> Iterator[Input]:
    fields = () if staging is None else staging.fields
    for one in staged_for(spec, action, fields):
        yield Input(one.field, Infer.FETCH, Origin(STAGE), uri=one.object.uri)


def _beside(spec: Mapping[str, Any], path: KeyPath, name: str) -> Any:
    """The value of another field of the section that a field is in."""
    return value_at(spec, dotted((*path[:-1], name)))


def _origin(
    takes: Model,
    path: str,
    target: str | None,
    before: Sequence[Position],
    parent: Parent | None,
) -> Origin:
    """The last stage before that leaves such a model, of those for the same target, else the
    parent's.

    Raises:
        RequestError: the parent has none, or none that can be used.
    """
    for position in reversed(before):
        if get_action(position.action).leaves == takes and position.target in (None, target):
            return Origin(position.name)
    assert parent is not None
    leaving = [stage for stage in parent.stages if stage.leaves == takes]
    fitting = [stage for stage in leaving if stage.target in (None, target)]
    if not fitting:
        wanted = MODEL_WORDS[takes] if target is None else f"{MODEL_WORDS[takes]} for {target}"
        there = ", ".join(f"{stage.target}" for stage in leaving)
        has = f" (it has those for {there})" if there else ""
        raise RequestError(
            f"job.parent: {parent.name} has no stage that leaves {wanted}, which {path} is to be "
            f"filled with{has}"
        )
    stage = fitting[-1]
    if stage.problem is not None:
        raise RequestError(f"job.parent: {stage.problem}")
    return stage.origin


def _dependencies(
    inputs: Sequence[Input], before: Sequence[Position], parent: Parent | None
) -> tuple[Dependency, ...]:
    ended = [stage.origin for stage in parent.stages if stage.ended] if parent else []
    named = [one.origin for one in inputs if one.origin is not None and one.origin not in ended]
    staged = [Origin(STAGE)] if Origin(STAGE) in named else []
    origins = [one for one in named if one != Origin(STAGE)]
    if before and not origins:
        origins = [Origin(before[-1].name)]
    origins += staged
    return tuple(Dependency(origin) for origin in dict.fromkeys(origins))
