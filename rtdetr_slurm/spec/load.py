"""From a spec file to what an action is asked to do, or to a list of all that is wrong with it."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, get_args

from rtdetr_slurm.actions import (
    ACTIONS,
    EngineName,
    EngineOf,
    get_action,
    own_engine,
)
from rtdetr_slurm.errors import RequestError
from rtdetr_slurm.model_check import InvalidInput, Problem, find_problems, locate
from rtdetr_slurm.resolved_spec import value_at
from rtdetr_slurm.spec.automl import AutoMLConfig
from rtdetr_slurm.spec.automl_rules import check_automl
from rtdetr_slurm.spec.carried import carry_over, contradictions
from rtdetr_slurm.spec.datasets import chain_of, complete_sources
from rtdetr_slurm.spec.experiment import (
    FROM_ENVIRONMENT,
    ExperimentConfig,
    SpecFile,
    used_sections,
)
from rtdetr_slurm.spec.fields import TRAINING, Section
from rtdetr_slurm.spec.job import JobConfig
from rtdetr_slurm.spec.keys import data_without_key, find_key, without_key
from rtdetr_slurm.spec.needs import check_chain
from rtdetr_slurm.spec.notes import notes_on_chain
from rtdetr_slurm.spec.overrides import MISSING, assemble
from rtdetr_slurm.spec.quantization import backend_takes_a_key
from rtdetr_slurm.spec.references import fill_references
from rtdetr_slurm.spec.rules import check_experiment
from rtdetr_slurm.spec.sizes import complete_scales
from rtdetr_slurm.spec.topology import Topology, complete_gpus, read_topology
from rtdetr_slurm.yaml_source import KeyPath, YamlSource, load_yaml, to_yaml

ParentSpec = Callable[[str], Mapping[str, Any]]
"""From the reference to a run to its resolved spec."""


@dataclass(frozen=True)
class LoadedSpec:
    """A valid spec, and what it is for.

    Attributes:
        action: the spec's own.
        actions: all that it asks for, in the order they run: its own, then those of job.then.
        experiment: TAO's sections; `model_fields_set` are those given or used by the actions.
        source: where each value stands.
        notes: lines for the user about what was filled in or passed over.
        key: that model files are encrypted with, as given; it is nowhere else in here.
    """

    path: Path
    action: str
    actions: tuple[str, ...]
    experiment: ExperimentConfig
    job: JobConfig
    automl: AutoMLConfig
    source: YamlSource
    notes: tuple[str, ...] = ()
    key: str | None = field(default=None, repr=False)

    def with_key_of(self, environ: Mapping[str, str]) -> LoadedSpec:
        """The same with the key itself in `key`, be it the environment's, and a spec that says so.

        Raises:
            RequestError: as find_key, or an action would leave its model unencrypted.
        """
        key = find_key(self.key, self.experiment.encryption_key, environ)
        if key is None:
            return self
        update = {"encryption_key": FROM_ENVIRONMENT}
        experiment = self.experiment.model_copy(update=update)
        problems = [p for name in self.actions for p in backend_takes_a_key(experiment, name)]
        if problems:
            raise InvalidInput(locate(self.source, problems))
        return replace(self, key=key, experiment=experiment)

    @property
    def section(self) -> Section:
        """The section of the spec's own action."""
        section: Section = getattr(self.experiment, ACTIONS[self.action].section)
        return section

    @property
    def topology(self) -> Topology:
        """What the spec's own action asks for."""
        return self.topology_of(self.action)

    def topology_of(self, action: str) -> Topology:
        """What `action` asks for; one GPU where its section does not say."""
        return read_topology(self.experiment, action)

    def resolved(self) -> dict[str, Any]:
        """TAO's sections as plain data with every default filled in, without job and automl.

        Sections of other actions are in it only where the spec gives them.
        """
        return resolve(self.experiment)


def resolve(experiment: ExperimentConfig) -> dict[str, Any]:
    """`LoadedSpec.resolved` of an experiment."""
    return experiment.model_dump(include=set(experiment.model_fields_set))


def dump_spec(experiment: ExperimentConfig) -> str:
    """The resolved spec as YAML; `load_spec` reads an equal experiment back."""
    return to_yaml(resolve(experiment))


def load_spec(
    path: Path,
    overrides: Sequence[str] = (),
    action: str | None = None,
    *,
    parent_spec: ParentSpec | None = None,
    engine_of: EngineOf = own_engine,
) -> LoadedSpec:
    """Read, complete and check a spec.

    Args:
        overrides: `key=value` with YAML values, no field twice.
        action: what to do, if the spec is not to decide.
        parent_spec: the resolved spec of the run that job.parent names; None leaves it alone.
        engine_of: whose image an action will run in.

    Raises:
        InvalidInput: (a RequestError) all problems at once, sorted by place.
        RequestError: the file cannot be read, or there is no such action.
    """
    if action is not None:
        get_action(action)
    texts, key = without_key(overrides)
    assembled = assemble(load_yaml(path), texts, action)
    data, key_of_spec = data_without_key(assembled.source.data)
    assembled = replace(assembled, source=replace(assembled.source, data=data))
    action, filled = assembled.action, fill_references(assembled.source.data)
    name = value_at(filled.data, "job.parent")
    parent: Mapping[str, Any] = {}
    carried: list[str] = []
    if parent_spec is not None and action is not None and isinstance(name, str) and name:
        parent = parent_spec(name)
        completed, carried = carry_over(assembled.source.data, action, parent, name)
        filled = fill_references(completed)
    given = complete_sources(filled.data, [*chain_of(filled.data, action)])
    data, gpu_notes = complete_gpus(_without_missing(given))
    data, scales_note = complete_scales(data)
    spec, wrong = _validate(data)
    problems = [*assembled.problems, *filled.problems, *wrong]
    if spec is not None:
        bad = [*filled.broken, *(problem.path for problem in wrong)]
        actions = _chain(spec, action)
        experiment = _experiment(spec, actions)
        found = [*check_experiment(experiment), *check_automl(spec.automl)]
        found += check_chain(experiment, actions, spec.job, engine_of)
        found += contradictions(experiment, actions, parent, str(name))
        problems += [problem for problem in found if not _depends_on(problem, bad)]
    if problems or assembled.malformed or spec is None or action is None:
        raise InvalidInput([*locate(assembled.source, problems), *assembled.malformed])
    topologies = dict.fromkeys(ACTIONS[name].topology for name in actions)
    notes = [gpu_notes[section] for section in topologies if section in gpu_notes]
    if scales_note and set(actions) & {*TRAINING}:
        notes.append(scales_note)
    notes += notes_on_chain(experiment, actions, spec.job.parent, engine_of)
    notes += carried
    return LoadedSpec(
        path=path,
        action=action,
        actions=actions,
        experiment=experiment,
        job=spec.job,
        automl=spec.automl,
        source=assembled.source,
        notes=tuple(notes),
        key=key or key_of_spec,
    )


def check_for_any_image(
    path: Path, overrides: Sequence[str] = (), action: str | None = None
) -> None:
    """Refuse a spec that is wrong whatever image it will run in, where no site says which.

    Raises:
        RequestError: as load_spec, by the rules of this project's own image.
    """

    def everywhere(engine: EngineName) -> EngineOf:
        return lambda _: engine

    wrong: list[RequestError] = []
    for engine in get_args(EngineName):
        try:
            load_spec(path, overrides, action, engine_of=everywhere(engine))
        except RequestError as error:
            wrong.append(error)
        else:
            return
    raise wrong[0]


def _without_missing(data: dict[str, Any]) -> dict[str, Any]:
    """`data` without null sections and without the keys whose value is still to be given."""

    def given(node: Any) -> Any:
        if isinstance(node, list):
            return [given(item) for item in node]
        if isinstance(node, dict):
            return {key: given(value) for key, value in node.items() if value != MISSING}
        return node

    return {key: value for key, value in given(data).items() if value is not None}


def _validate(data: dict[str, Any]) -> tuple[SpecFile | None, list[Problem]]:
    """The spec with every wrong value left at its default, and what was wrong."""
    spec, problems = find_problems(SpecFile, data)
    if spec is not None:
        return spec, []
    data = copy.deepcopy(data)
    for problem in problems:
        _remove(data, problem.path)
    return find_problems(SpecFile, data)[0], problems


def _remove(data: dict[str, Any], path: KeyPath) -> None:
    """Take out the innermost keyed value on `path`."""
    while path and isinstance(path[-1], int):
        path = path[:-1]
    node: Any = data
    for part in path[:-1]:
        if isinstance(node, dict) and part not in node:
            return  # already gone with what held it
        node = node[part]
    if path:
        node.pop(path[-1], None)


def _depends_on(problem: Problem, bad: Iterable[KeyPath]) -> bool:
    """Whether a rule looked at a value that is wrong anyway."""
    involved = (problem.path, *problem.also)
    return any(
        path[: len(wrong)] == wrong or wrong[: len(path)] == path
        for path in involved
        for wrong in bad
    )


def _chain(spec: SpecFile, action: str | None) -> tuple[str, ...]:
    """The spec's own action, then those of job.then."""
    return (action, *(entry.action for entry in spec.job.then)) if action else ()


def _experiment(spec: SpecFile, actions: Sequence[str]) -> ExperimentConfig:
    """TAO's part of the file; its `model_fields_set` are the sections given or used."""
    names = ExperimentConfig.model_fields
    used = {name for action in actions for name in used_sections(action)}
    values = {name: getattr(spec, name) for name in names}
    kept = {name for name in names if name in spec.model_fields_set | used}
    return ExperimentConfig.model_construct(_fields_set=kept, **values)
