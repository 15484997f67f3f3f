"""Which fields of a spec name something to bring before a stage begins. Pure."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

from rtdetr_slurm.actions import EngineName, EngineOf
from rtdetr_slurm.plan.staging import ObjectKind, StagedField, StagedObject
from rtdetr_slurm.resolved_spec import is_remote, value_at
from rtdetr_slurm.spec.addresses import is_packed
from rtdetr_slurm.spec.dataset import ARCHIVE_SUFFIXES
from rtdetr_slurm.spec.fields import FieldRef
from rtdetr_slurm.spec.paths import fields_of
from rtdetr_slurm.yaml_source import KeyPath


def staged_fields(
    spec: Mapping[str, Any],
    actions: Sequence[str],
    engine_of: EngineOf,
    *,
    only_named: bool = False,
) -> tuple[StagedField, ...]:
    """The fields that some actions read and that name addresses or archives, each once.

    Archives of images without annotations stay as they are where the engine reads them so.

    Args:
        spec: frozen.
        only_named: whether of an archive only the images are unpacked that annotations name.
    """
    found = {
        one.field: one for action in actions for one in _of_action(spec, action, engine_of(action))
    }
    if only_named:
        return tuple(_only_named(one, spec) for one in found.values())
    return tuple(found.values())


def staged_for(
    spec: Mapping[str, Any], action: str, fields: Sequence[StagedField]
) -> Iterator[StagedField]:
    """Those that an action reads."""
    read = {_text(at) for _, at, _ in fields_of(spec, action, "read")}
    return (one for one in fields if one.field in read)


def _of_action(spec: Mapping[str, Any], action: str, engine: EngineName) -> Iterator[StagedField]:
    for ref, at, value in fields_of(spec, action, "read"):
        names_field = _text((*at[:-1], "json_file"))
        annotated = at[-1] == "image_dir"
        kind = _kind(ref, value, in_place=not annotated and engine == "rtdetr")
        if kind is not None:
            field = StagedField(_text(at), StagedObject(value, kind))
            yield replace(field, names_field=names_field) if annotated else field


def _kind(ref: FieldRef, value: Any, *, in_place: bool) -> ObjectKind | None:
    """What is to be brought; None where nothing is.

    Args:
        in_place: whether archives on the file system are read as they are.
    """
    if ref.extra("x-holds") != "images":
        return "file" if is_remote(value) else None
    if is_remote(value):
        return "archive" if is_packed(value) else "folder"
    if not isinstance(value, str) or not is_packed(value):
        return None
    return None if in_place and value.lower().endswith(ARCHIVE_SUFFIXES) else "archive"


def _only_named(one: StagedField, spec: Mapping[str, Any]) -> StagedField:
    if one.names_field is None or one.object.kind != "archive":
        return one
    return replace(one, object=replace(one.object, names_from=value_at(spec, one.names_field)))


def _text(path: KeyPath) -> str:
    return ".".join(map(str, path))
