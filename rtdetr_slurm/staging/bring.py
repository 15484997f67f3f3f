"""From the addresses and archives of a spec to plain files and folders."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from rtdetr_slurm.errors import RequestError
from rtdetr_slurm.plan.staging import StagedField, Staging
from rtdetr_slurm.resolved_spec import local_path, value_at, with_values
from rtdetr_slurm.runs.staged import StagedPath
from rtdetr_slurm.staging.entries import Entry
from rtdetr_slurm.staging.fetch import fetch
from rtdetr_slurm.staging.progress import Tell


def bring(
    staging: Staging,
    spec: Mapping[str, Any],
    *,
    tell: Tell,
    stopped: Callable[[], bool] = lambda: False,
) -> list[StagedPath]:
    """Bring everything, and say what each field gets.

    Args:
        spec: frozen.

    Raises:
        RequestError: an object is not there, an archive is none, or the names of annotations are
            not those of its images.
        SiteError: a place cannot be reached.
        Stopped: it was.
    """
    brought: dict[str, StagedPath] = {}
    # Annotations first: they say which folder of an archive their names are relative to.
    for one in sorted(staging.fields, key=lambda one: one.object.kind != "file"):
        entry = fetch(one.object, Path(staging.cache), staging.store, tell=tell, stopped=stopped)
        filled = with_values(spec, {name: other.path for name, other in brought.items()})
        path = _root(one, entry, filled)
        brought[one.field] = StagedPath(
            one.field, entry.uri, str(path), entry.key, entry.size, entry.etag
        )
    return [brought[one.field] for one in staging.fields]


def _root(one: StagedField, entry: Entry, spec: Mapping[str, Any]) -> Path:
    """What a field gets: the file, or the folder that names are relative to."""
    if one.object.kind == "file":
        return entry.path
    [top] = entry.path.iterdir()
    if one.object.kind == "folder" or one.names_field is None:
        return top
    from rtdetr_slurm.data.coco import read_annotations
    from rtdetr_slurm.data.roots import image_root

    annotations = local_path(str(value_at(spec, one.names_field)))
    if annotations is None:
        raise RequestError(f"{one.names_field} names no file: {value_at(spec, one.names_field)}")
    names = read_annotations(annotations).file_names
    return image_root(entry.path, names, top.name)
