"""staged.json: where a stage has brought what others read. Standard library only."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from rtdetr_slurm.contract import STAGED_JSON, STAGED_VERSION
from rtdetr_slurm.errors import RequestError
from rtdetr_slurm.files import write_atomic
from rtdetr_slurm.records import read_record


@dataclass(frozen=True)
class StagedPath:
    """One field of the spec, and what it gets.

    Attributes:
        uri: what was brought; an archive of the file system by its path.
        path: absolute: the file, or the folder that names are relative to.
        key: of the entry in the cache.
        size: of the object in bytes.
        etag: what told this object from another at the same address; empty where nothing did.
    """

    field: str
    uri: str
    path: str
    key: str
    size: int
    etag: str = ""


@dataclass(frozen=True)
class StagedRecord:
    """The whole file."""

    fields: tuple[StagedPath, ...]
    schema_version: int = STAGED_VERSION


def keep_staged(folder: Path, staged: Sequence[StagedPath]) -> None:
    """Write staged.json.

    Raises:
        OSError: it cannot be written.
    """
    text = json.dumps(asdict(StagedRecord(tuple(staged))), indent=2)
    write_atomic(folder / STAGED_JSON, text + "\n")


def read_staged(folder: Path) -> StagedRecord | None:
    """What a stage has brought; None while it has not.

    Raises:
        NewerVersion, BadRecord: it cannot be read.
    """
    return read_record(StagedRecord, folder / STAGED_JSON, STAGED_VERSION)


def staged_path(folder: Path, field: str, uri: str | None) -> Path:
    """Where a stage has brought what a field names, or what another field names by the same
    address.

    Raises:
        RequestError: it has not brought it, it has gone since, or its record cannot be read.
    """
    record = read_staged(folder)
    found = () if record is None else record.fields
    same = [one for one in found if one.field == field] or [one for one in found if one.uri == uri]
    if not same:
        raise RequestError(f"{folder / STAGED_JSON} does not say where {uri} is")
    path = Path(same[0].path)
    if not path.exists():
        raise RequestError(f"{path}, to where {uri} was brought, has gone; resume the run")
    return path
