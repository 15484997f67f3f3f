"""A ready spec per action: every field that the action is meant to use, with its comment."""

from __future__ import annotations

import textwrap
from collections.abc import Iterator, Mapping
from typing import Any

from rtdetr_slurm.spec.experiment import OURS, ExperimentConfig, SpecFile
from rtdetr_slurm.spec.fields import FieldRef, Section, declared, is_list
from rtdetr_slurm.spec.overrides import MISSING
from rtdetr_slurm.yaml_source import to_yaml

_WIDTH = 100
_HEAD = """\
Spec for action {action} with every field it uses, at its default.
??? marks what you must fill in; whatever you leave out of the file keeps its default.
"""
_FIXED = "Only the default works in this version."
_NO_EFFECT = "It changes nothing here."


def template_data(action: str) -> dict[str, Any]:
    """TAO's sections as the template shows them, as plain data."""
    refs = _of_action(ExperimentConfig, None, action)
    return {str(ref.path[-1]): _shown(ref, action) for ref in refs}


def template_yaml(action: str, schema: str | None = None) -> str:
    """The template as YAML, each field's description above it.

    Args:
        schema: path or URL of the JSON Schema, for editors that check while one types.
    """
    lines = [f"# yaml-language-server: $schema={schema}"] if schema else []
    lines += [f"# {line}" for line in _HEAD.format(action=action).splitlines()]
    job = next(ref for ref in declared(SpecFile) if ref.path == ("job",))
    for ref in (job, *_of_action(ExperimentConfig, None, action)):
        lines += ["", *_field_lines(ref, action, indent="")]
    return "\n".join(lines) + "\n"


def _of_action(section: type[Section], above: FieldRef | None, action: str) -> Iterator[FieldRef]:
    """The fields of a section that the action is meant to use."""
    return (ref for ref in declared(section, above) if action in ref.used_by)


def _shown(ref: FieldRef, action: str) -> Any:
    if _is_plain_section(ref):
        assert ref.nested is not None
        inner = _of_action(ref.nested, ref, action)
        return {str(child.path[-1]): _shown(child, action) for child in inner}
    if ref.path == ("job", "action"):
        return action
    if (shown := ref.extra("x-template")) is not None:
        return shown
    return MISSING if action in ref.required_by else ref.default


def _field_lines(ref: FieldRef, action: str, indent: str) -> list[str]:
    name = str(ref.path[-1])
    comment = _comment(ref, action)
    lines = textwrap.wrap(
        comment, _WIDTH, initial_indent=f"{indent}# ", subsequent_indent=f"{indent}# "
    )
    if not _is_plain_section(ref):
        value = to_yaml({name: _shown(ref, action)})
        return lines + textwrap.indent(value, indent).splitlines()
    assert ref.nested is not None
    lines.append(f"{indent}{name}:")
    for child in _of_action(ref.nested, ref, action):
        lines += _field_lines(child, action, indent + "  ")
    return lines


def _comment(ref: FieldRef, action: str) -> str:
    text = str(ref.info.description)
    if ref.nested is not None or ref.path[0] in OURS:
        return text
    if action in ref.no_effect_in:
        return f"{text} {_NO_EFFECT}"
    return text if action in ref.honoured_by else f"{text} {_FIXED}"


def _is_plain_section(ref: FieldRef) -> bool:
    """Whether the field is a section, and not a list of sections or one that may be absent."""
    return (
        ref.nested is not None
        and not is_list(ref.info)
        and isinstance(ref.default, Mapping | Section)
    )
