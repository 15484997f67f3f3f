"""Data against a pydantic model: every problem at once, each with its place in the file.

Used for specs and for site profiles alike.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, TypeVar, get_args

from pydantic import BaseModel, GetCoreSchemaHandler, GetJsonSchemaHandler, ValidationError
from pydantic_core import CoreSchema, ErrorDetails, core_schema

from rtdetr_slurm.errors import RequestError, near
from rtdetr_slurm.yaml_source import KeyPath, Position, YamlSource, dotted, show

_Model = TypeVar("_Model", bound=BaseModel)

NEAR = 0.7
"""How alike a key must be to one that exists to be taken for it; many keys are much alike."""


@dataclass(frozen=True)
class Problem:
    """One thing wrong with the data.

    Attributes:
        path: the value it is about.
        message: what was found and what is allowed.
        key: the key is wrong and not the value behind it.
        also: further values involved; a message stands at the one that was written last.
    """

    path: KeyPath
    message: str
    key: bool = False
    also: tuple[KeyPath, ...] = ()


def number_as_text(value: Any) -> Any:
    """Text that YAML takes for a number, as 8.9; shells take its quotes away."""
    return str(value) if isinstance(value, float) else value


@dataclass(frozen=True)
class Matches:
    """Annotation of a text that matches a regular expression as a whole.

    Attributes:
        pattern: with `^` and `$`, as JSON Schema needs them.
        allowed: what it says, in the words of a message; nobody is shown the expression.
    """

    pattern: str
    allowed: str

    def check(self, value: str) -> str:
        """The value itself.

        Raises:
            ValueError: it does not match.
        """
        if not re.fullmatch(self.pattern, value):
            raise ValueError(self.allowed)
        return value

    def __get_pydantic_core_schema__(
        self, source: Any, handler: GetCoreSchemaHandler
    ) -> CoreSchema:
        return core_schema.no_info_after_validator_function(self.check, handler(source))

    def __get_pydantic_json_schema__(
        self, schema: CoreSchema, handler: GetJsonSchemaHandler
    ) -> dict[str, Any]:
        return {**handler(schema), "pattern": self.pattern, "x-allowed": self.allowed}


@dataclass(frozen=True)
class LocatedProblem:
    """A problem with its place: a position in `file`, or the override it came by."""

    file: str
    position: Position | None
    override: str | None
    field: str
    message: str

    def __str__(self) -> str:
        if self.position is None:
            where = f"override {self.override!r}"
        else:
            where = f"{self.file}:{self.position.line}:{self.position.column}"
        return ": ".join(part for part in (where, self.field, self.message) if part)


class InvalidInput(RequestError):
    """A file (or what overrides made of it) that does not fit its model: every problem at once."""

    def __init__(self, problems: Iterable[LocatedProblem]) -> None:
        self.problems = tuple(problems)
        super().__init__("\n".join(map(str, self.problems)))


def check_model(model: type[_Model], source: YamlSource) -> _Model:
    """`source.data` as a `model`.

    Raises:
        InvalidInput: with all problems, in the order of the file.
    """
    checked, problems = find_problems(model, source.data)
    if checked is None:
        raise InvalidInput(locate(source, problems))
    return checked


def find_problems(
    model: type[_Model], data: Mapping[str, Any]
) -> tuple[_Model | None, list[Problem]]:
    """Validate without raising: the model, or None and the reasons."""
    try:
        return model.model_validate(data), []
    except ValidationError as error:
        return None, _problems(model, data, error)


def locate(source: YamlSource, problems: Iterable[Problem]) -> list[LocatedProblem]:
    """`problems` with their places: those of the file first, in its order, then overrides."""
    located = []
    for problem in problems:
        path = _written_last(source, problem)
        origin = source.origin(path, key=problem.key)
        position, override = (None, origin) if isinstance(origin, str) else (origin, None)
        item = LocatedProblem(
            str(source.path), position, override, dotted(problem.path), problem.message
        )
        if item not in located:
            located.append(item)
    texts = [text for _, text in source.overrides]
    return sorted(
        located,
        key=lambda item: item.position or (float("inf"), texts.index(item.override or texts[0])),
    )


def in_lines(problems: Iterable[Problem]) -> str:
    """Problems of what no file has as a message, each with its field."""
    return "\n".join(f"{dotted(problem.path)}: {problem.message}" for problem in problems)


def _written_last(source: YamlSource, problem: Problem) -> KeyPath:
    """Of the values involved, the one to point at: overridden, else written, else the first."""
    involved = (problem.path, *problem.also)
    for path in involved:
        if source.is_overridden(path):
            return path
    return next((path for path in involved if source.is_given(path)), problem.path)


def _problems(
    model: type[BaseModel], data: Mapping[str, Any], error: ValidationError
) -> list[Problem]:
    by_path: dict[KeyPath, list[ErrorDetails]] = {}
    in_union: set[KeyPath] = set()
    for details in error.errors(include_url=False):
        path = _data_path(details, data)
        by_path.setdefault(path, []).append(details)
        if len(path) < len(details["loc"]):
            in_union.add(path)
    # Of the alternatives of a union, the one that got deepest into the data is the one meant.
    deepest = [
        path
        for path in by_path
        if not any(path != other and other[: len(path)] == path for other in in_union)
    ]
    return [_problem(model, path, by_path[path]) for path in deepest]


def _data_path(details: ErrorDetails, data: Any) -> KeyPath:
    """pydantic's location without the names it adds for the members of a union."""
    path: list[str | int] = []
    absent = details["type"] in ("missing", "extra_forbidden")
    for depth, part in enumerate(details["loc"]):
        last = depth == len(details["loc"]) - 1
        if isinstance(data, dict) and (part in data or (absent and last)):
            data = data.get(part)
        elif isinstance(data, list) and isinstance(part, int) and part < len(data):
            data = data[part]
        else:
            continue
        path.append(part)
    return tuple(path)


def _problem(model: type[BaseModel], path: KeyPath, errors: list[ErrorDetails]) -> Problem:
    kind = errors[0]["type"]
    if kind == "extra_forbidden":
        return Problem(path, _unknown_key(model, path), key=True)
    if kind == "missing":
        return Problem(path, "missing, and it has no default")
    allowed = " or ".join(dict.fromkeys(_allowed(details) for details in errors))
    found = errors[0]["input"]
    message = f"found {show(found)}{_kind_hint(found, kind)}; allowed: {allowed}"
    if kind == "literal_error":
        message += near(found, _options(errors[0]), NEAR)
    return Problem(path, message)


def _options(details: ErrorDetails) -> list[str]:
    """The members of a Literal, from pydantic's "'a', 'b' or 3"."""
    return [text.strip("'") for text in re.findall(r"'[^']*'|-?\d+", details["ctx"]["expected"])]


def _allowed(details: ErrorDetails) -> str:
    kind, ctx = details["type"], details.get("ctx", {})
    text = _ALLOWED.get(kind)
    if text is not None:
        return text.format(**ctx)
    if kind == "value_error":
        return str(ctx["error"])
    if kind == "literal_error":
        return ", ".join(option or "''" for option in _options(details))
    return details["msg"]


_ALLOWED = {
    "int_type": "an integer",
    "int_from_float": "an integer",
    "float_type": "a number",
    "finite_number": "a finite number",
    "bool_type": "true or false",
    "string_type": "text",
    "list_type": "a list",
    "dict_type": "a section (`key: value` lines)",
    "model_type": "a section (`key: value` lines)",
    "greater_than": "> {gt}",
    "greater_than_equal": "≥ {ge}",
    "less_than": "< {lt}",
    "less_than_equal": "≤ {le}",
    "multiple_of": "a multiple of {multiple_of}",
    "too_short": "at least {min_length} entries (found {actual_length})",
    "too_long": "at most {max_length} entries (found {actual_length})",
    "string_too_short": "at least {min_length} characters",
    "string_too_long": "at most {max_length} characters",
}


def _kind_hint(found: Any, kind: str) -> str:
    if isinstance(found, str) and kind in ("int_type", "float_type", "bool_type", "list_type"):
        return " (text)"
    if isinstance(found, int | float) and kind == "string_type":
        return " (write it in quotes to make it text)"
    return ""


def _unknown_key(model: type[BaseModel], path: KeyPath) -> str:
    key = str(path[-1])
    elsewhere = _key_places(model)
    here = _model_at(model, path[:-1])
    keys = list(here.model_fields) if here is not None else []
    if hint := near(key, keys, NEAR):
        return f"unknown key{hint}"
    if key in elsewhere:
        return f"unknown key here; it belongs at {' or '.join(elsewhere[key])}"
    close = difflib.get_close_matches(key, elsewhere, n=1, cutoff=NEAR)
    if close:
        return f"unknown key; did you mean {' or '.join(elsewhere[close[0]])}?"
    return f"unknown key; allowed here: {', '.join(keys)}"


def nested_model(annotation: Any) -> type[BaseModel] | None:
    """The model inside a field's type (`M`, `M | None`, `list[M]`), if there is one."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return annotation
    return next(filter(None, map(nested_model, get_args(annotation))), None)


def _model_at(model: type[BaseModel] | None, path: KeyPath) -> type[BaseModel] | None:
    for part in path:
        if model is None or isinstance(part, int):
            continue
        info = model.model_fields.get(part)
        model = nested_model(info.annotation) if info else None
    return model


def _key_places(model: type[BaseModel], prefix: str = "") -> dict[str, list[str]]:
    """Every key of `model` and of the models in it, with the dotted paths where it is valid."""
    places: dict[str, list[str]] = {}
    for name, info in model.model_fields.items():
        places.setdefault(name, []).append(prefix + name)
        nested = nested_model(info.annotation)
        if nested is not None:
            for key, paths in _key_places(nested, f"{prefix}{name}.").items():
                places.setdefault(key, []).extend(paths)
    return places
