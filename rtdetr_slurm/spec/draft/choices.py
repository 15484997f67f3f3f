"""The fields that are chosen so far, with their reasons, and how they become text."""

from __future__ import annotations

import copy
import textwrap
from collections.abc import Iterator, Mapping
from typing import Any

from rtdetr_slurm.resolved_spec import value_at, with_value
from rtdetr_slurm.spec.experiment import ExperimentConfig
from rtdetr_slurm.yaml_source import to_yaml

_WIDTH = 100
_SECTIONS = ("job", "dataset", "model", "train", "export")
"""In this order; what else is given comes after them."""


class Choices:
    """A spec that grows field by field; what the user has given stays as it is.

    Args:
        given: nested, as `key=value` has it.
    """

    def __init__(self, given: Mapping[str, Any]) -> None:
        self._given = copy.deepcopy(dict(given))
        self._chosen: dict[str, Any] = {}
        self._reasons: dict[str, str] = {}

    def is_given(self, field: str) -> bool:
        return value_at(self._given, field) is not None

    def choose(self, field: str, value: Any, reason: str) -> None:
        """Set a field, unless it is given."""
        if not self.is_given(field):
            self._chosen = with_value(self._chosen, field, value)
            self._reasons[field] = reason

    def value(self, field: str) -> Any:
        """What is given, else chosen, else the default."""
        for data in (self._given, self._chosen):
            if (value := value_at(data, field)) is not None:
                return value
        section, _, rest = field.partition(".")
        default = getattr(ExperimentConfig(), section).model_dump()
        return value_at(default, rest)

    def chosen(self) -> str:
        """YAML of what is chosen alone, for the given to be checked on top of it."""
        return to_yaml(self._chosen)

    def text(self, head: str) -> str:
        """YAML, each field below its reason.

        Args:
            head: the first lines, a comment.
        """
        data = _merged(self._chosen, self._given)
        names = sorted(data, key=lambda name: (*_SECTIONS, name).index(name))
        lines = [f"# {line}" for line in textwrap.wrap(head, _WIDTH - 2)]
        for name in names:
            lines += ["", *self._lines(name, data[name], name, "")]
        return "\n".join(lines) + "\n"

    def _lines(self, field: str, value: Any, name: str, indent: str) -> Iterator[str]:
        if isinstance(value, Mapping) and field not in self._reasons:
            yield f"{indent}{name}:"
            for key, inner in value.items():
                yield from self._lines(f"{field}.{key}", inner, key, indent + "  ")
            return
        reason = self._reasons.get(field, "Given.")
        comment = f"{indent}# "
        yield from textwrap.wrap(reason, _WIDTH, initial_indent=comment, subsequent_indent=comment)
        yield from textwrap.indent(to_yaml({name: value}), indent).splitlines()


def _merged(below: Mapping[str, Any], above: Mapping[str, Any]) -> dict[str, Any]:
    merged = dict(below)
    for key, value in above.items():
        inner = merged.get(key)
        both = isinstance(inner, Mapping) and isinstance(value, Mapping)
        merged[key] = _merged(inner, value) if both else value  # type: ignore[arg-type]
    return merged
