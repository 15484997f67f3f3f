"""What a spec has searched: its fields, and what each may be. Pure."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from rtdetr_slurm.actions import EngineOf
from rtdetr_slurm.automl.effects import SAME_FOR_ALL, SPEED_ONLY, why_idle
from rtdetr_slurm.automl.ranges import own_range
from rtdetr_slurm.errors import RequestError
from rtdetr_slurm.model_check import InvalidInput, Problem, find_problems, locate
from rtdetr_slurm.plan.chain import STARTED_FROM
from rtdetr_slurm.plan.search import Parameter
from rtdetr_slurm.resolved_spec import value_at, with_value
from rtdetr_slurm.spec import ExperimentConfig, LoadedSpec
from rtdetr_slurm.spec.automl import Range, named_fields, range_of
from rtdetr_slurm.spec.fields import TRAIN, FieldRef, walk
from rtdetr_slurm.spec.needs import check_chain
from rtdetr_slurm.spec.rules import check_experiment
from rtdetr_slurm.spec.teacher import TEACHER
from rtdetr_slurm.yaml_source import KeyPath, dotted, show


@dataclass(frozen=True)
class Space:
    """What is searched.

    Attributes:
        left_out: of the fields that are searched by default: those that are not, and why.
    """

    parameters: tuple[Parameter, ...]
    left_out: Mapping[str, str] = field(default_factory=dict)


class _NoUse(Exception):
    """Why a field cannot be searched."""


def search_space(
    loaded: LoadedSpec, spec: Mapping[str, Any], schema: Mapping[str, Any], engine_of: EngineOf
) -> Space:
    """The fields that the spec names, or those that the schema of its action has by default.

    Args:
        spec: frozen, of `loaded`.
        schema: JSON Schema of the spec's action.
        engine_of: whose image an action will run in.

    Raises:
        InvalidInput: the spec names fields that cannot be searched, or ranges that cannot be.
        RequestError: nothing is left to search.
    """
    named = named_fields(loaded.automl)
    by_default = [] if loaded.automl.parameters else schema["automl_default_parameters"]
    wanted = [*dict.fromkeys([*by_default, *named])]
    draft = _Draft(loaded, spec, schema, engine_of, wanted)
    found: list[Parameter] = []
    left_out: dict[str, str] = {}
    problems: list[Problem] = []
    for name in wanted:
        try:
            found.append(draft.parameter(name, asked=name in named))
        except _NoUse as error:
            if name in named:
                problems.append(Problem(_place(loaded, name), str(error)))
            else:
                left_out[name] = str(error)
    if problems:
        raise InvalidInput(locate(loaded.source, problems))
    if not found:
        reasons = "".join(f"\n  {name}: {why}" for name, why in left_out.items())
        raise RequestError(f"automl.parameters: nothing is left to search:{reasons}")
    return Space(tuple(_within_one_another(found)), left_out)


def _place(loaded: LoadedSpec, name: str) -> KeyPath:
    if name in loaded.automl.ranges:
        return ("automl", "ranges", name)
    return ("automl", "parameters", loaded.automl.parameters.index(name))


def _within_one_another(found: list[Parameter]) -> Iterator[Parameter]:
    """Without a limit by a field that is not searched: its value is in the range already."""
    names = [parameter.field for parameter in found]
    for parameter in found:
        yield parameter if parameter.at_most in names else replace(parameter, at_most=None)


class _Draft:
    """A space under construction.

    Attributes:
        wanted: dotted paths of what is to be searched.
        refs: the fields of a spec, by their dotted paths.
    """

    def __init__(
        self,
        loaded: LoadedSpec,
        spec: Mapping[str, Any],
        schema: Mapping[str, Any],
        engine_of: EngineOf,
        wanted: Sequence[str],
    ) -> None:
        self.wanted = wanted
        self.loaded, self.spec, self.schema, self.engine_of = loaded, spec, schema, engine_of
        self.experiment = loaded.experiment
        self.refs = {dotted(ref.path): ref for ref in walk(ExperimentConfig)}
        self._resolved = loaded.resolved()

    def parameter(self, name: str, *, asked: bool) -> Parameter:
        """A field with its range.

        Raises:
            _NoUse: it cannot be searched.
        """
        ref, default = self.refs[name], value_at(self._resolved, name)
        self._see_that_it_counts(ref, name, asked=asked)
        node = _node(self.schema, name)
        found = own_range(name, default, node, self.experiment)
        given = self.loaded.automl.ranges.get(name)
        if given is not None:
            found = _as_asked(name, default, found, range_of(given), node)
        if found is None:
            raise _NoUse("it has no range of its own; allowed: one in automl.ranges")
        found = replace(found, at_most=self._limit(ref, default))
        return self._valid(found, asked=given is not None)

    def _see_that_it_counts(self, ref: FieldRef, name: str, *, asked: bool) -> None:
        disabled = name in self.schema["automl_disabled_parameters"]
        if disabled and not self.loaded.automl.override_disabled:
            raise _NoUse(
                f"{name} is marked as not to be searched; allowed: automl.override_disabled: true"
            )
        if ref.extra("x-path") is not None or ref.nested is not None:
            raise _NoUse(f"{name} is nothing that can be searched")
        if (why := why_idle(ref, self.experiment, self.loaded.action)) is not None:
            raise _NoUse(f"{name} changes nothing here: {why}" if asked else why)
        if not asked and name in SPEED_ONLY:
            raise _NoUse("it changes how fast is trained, and not what is learned")
        if (why := self._why_fixed(ref)) is not None:
            raise _NoUse(f"{name} cannot change: {why}" if asked else why)

    def _why_fixed(self, ref: FieldRef) -> str | None:
        """Why a field is the same for all trials; None where it need not be."""
        if dotted(ref.path) in SAME_FOR_ALL:
            return "trials are compared epoch by epoch, on the same GPUs"
        if ref.path[: len(TEACHER)] == TEACHER:
            return "the teacher is as it was trained"
        if self.loaded.action not in (ref.extra("x-carried") or ()):
            return None
        if ref.path[0] == "dataset":
            return "all trials are scored alike, on the same data"
        if self.loaded.job.parent and self.loaded.action in TRAIN:  # of a distillation the teacher
            return f"training goes on from {self.loaded.job.parent}, which has this detector"
        for name in STARTED_FROM:
            if value_at(self.spec, name):
                return f"training starts from {name}, which has this detector"
        if ref.path == ("model", "backbone") and self.experiment.model.pretrained_backbone_path:
            return "model.pretrained_backbone_path has weights of this one"
        if self.loaded.automl.algorithm == "pbt":
            return "pbt goes on with the same detector"
        return None

    def _limit(self, ref: FieldRef, default: Any) -> str | None:
        """The field that this one may not exceed, where the spec's own value does not, either."""
        limit: str | None = ref.extra("x-depends-on")
        if limit is None or default > value_at(self._resolved, limit):
            return None
        return limit

    def _limited_by(self, name: str) -> Iterator[str]:
        """The fields that are searched, too, and never exceed this one."""
        for other in self.wanted:
            ref = self.refs[other]
            if self._limit(ref, value_at(self._resolved, other)) == name:
                yield other

    def _valid(self, found: Parameter, *, asked: bool) -> Parameter:
        """The parameter with nothing in it that a spec may not say.

        Raises:
            _NoUse: the user's own range holds something else, or nothing is left.
        """
        if found.kind == "categorical":
            wrong = {repr(one): why for one in found.choices if (why := self._problem(found, one))}
            if asked and wrong:
                raise _NoUse(next(iter(wrong.values())))
            keep = [index for index, one in enumerate(found.choices) if repr(one) not in wrong]
            if len(keep) < 2:
                raise _NoUse(next(iter(wrong.values())))
            weights = tuple(found.weights[index] for index in keep) if found.weights else ()
            choices = tuple(found.choices[index] for index in keep)
            return replace(found, choices=choices, weights=weights)
        low, high, why = found.low, found.high, None
        for name in ("low", "high"):
            bound = low if name == "low" else high
            while bound != found.default and (problem := self._problem(found, bound)):
                why = problem
                if asked:
                    raise _NoUse(problem)
                bound = self._nearer(found, bound)
            low, high = (bound, high) if name == "low" else (low, bound)
        if low == high:
            raise _NoUse(f"nothing but its own value is allowed: {why}")
        return replace(found, low=low, high=high)

    @staticmethod
    def _nearer(found: Parameter, bound: Any) -> Any:
        """The next value on the way from a bound to the spec's own."""
        if found.kind == "float":
            return found.default
        return bound + found.step if bound < found.default else bound - found.step

    def _problem(self, found: Parameter, value: Any) -> str | None:
        """What a spec with this value in it would be refused for."""
        data = with_value(self._resolved, found.field, value)
        if found.at_most is not None and value > value_at(self._resolved, found.at_most):
            data = with_value(data, found.at_most, value)
        for name in self._limited_by(found.field):
            data = with_value(data, name, min(value, value_at(self._resolved, name)))
        experiment, problems = find_problems(ExperimentConfig, data)
        if experiment is not None:
            experiment = ExperimentConfig.model_construct(
                _fields_set=self.experiment.model_fields_set,
                **{name: getattr(experiment, name) for name in ExperimentConfig.model_fields},
            )
            problems = [
                *check_experiment(experiment),
                *check_chain(experiment, self.loaded.actions, self.loaded.job, self.engine_of),
            ]
        lines = (f"{dotted(problem.path)}: {problem.message}" for problem in problems)
        return next(lines, None)


def _as_asked(
    name: str, default: Any, own: Parameter | None, asked: Range, node: Mapping[str, Any]
) -> Parameter:
    """The range that the spec gives; what it leaves open is as in the field's own.

    Raises:
        _NoUse: it does not fit the field, or does not hold the spec's own value.
    """
    categorical = own is not None and own.kind == "categorical"
    if asked.values or (categorical and asked.weights):
        choices = asked.values or (own.choices if own is not None else ())
        if isinstance(default, float):
            choices = tuple(float(one) if type(one) is int else one for one in choices)
        if default not in choices:
            raise _NoUse(_without_own(list(choices), default))
        try:
            return Parameter(name, "categorical", default, choices=choices, weights=asked.weights)
        except RequestError as error:
            raise _NoUse(str(error)) from None
    if categorical or not isinstance(default, int | float):
        raise _NoUse("found a range; allowed: a list of values")
    low, high = (own.low, own.high) if own is not None else (None, None)
    low = low if asked.low is None else asked.low
    high = high if asked.high is None else asked.high
    if low is None or high is None:
        raise _NoUse("it has no range of its own; allowed: both min and max")
    if not low <= default <= high:
        raise _NoUse(_without_own({"min": low, "max": high}, default))
    integers = isinstance(default, int) and node.get("type") == "integer"
    log = asked.log if asked.log is not None else bool(own and own.log) and low > 0
    step = asked.step or 1
    if integers and ((default - low) % step or (high - default) % step or low % 1 or high % 1):
        raise _NoUse(
            f"found {show({'min': low, 'max': high, 'step': step})}; allowed: integers that are "
            f"whole steps from the spec's own, {default}"
        )
    try:
        if integers:
            return Parameter(name, "int", default, low=int(low), high=int(high), log=log, step=step)
        return Parameter(name, "float", default, low=float(low), high=float(high), log=log)
    except RequestError as error:
        raise _NoUse(str(error)) from None


def _without_own(found: Any, default: Any) -> str:
    return (
        f"found {show(found)}, and the spec's own value, with which the first trial runs, is "
        f"{show(default)}; allowed: a range that holds it, or another value in the spec"
    )


def _node(schema: Mapping[str, Any], name: str) -> Mapping[str, Any]:
    """What a schema says about a field."""
    node: Any = schema
    for part in name.split("."):
        node = node["properties"][part]
        if "$ref" in node:
            node = schema["$defs"][node["$ref"].removeprefix("#/$defs/")]
    found: Mapping[str, Any] = node
    return found
