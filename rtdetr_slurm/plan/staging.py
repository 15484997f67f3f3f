"""What is brought to the shared file system before a stage begins, and what is taken away when all
have ended, as plain frozen values, part of a plan. Standard library only."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from rtdetr_slurm.errors import RequestError

STAGE, UPLOAD = "stage", "upload"
"""The stages that bring what others read, and take away what they leave."""

ObjectKind = Literal["file", "archive", "folder"]
"""A single file; an archive to unpack; all that is below a prefix of an object store."""


@dataclass(frozen=True)
class Store:
    """How object stores are reached; what boto3 takes from its environment where it is None. No
    secret is among it.

    Attributes:
        endpoint_url: of another store than Amazon's.
        profile: a section of the user's ~/.aws files.
        anonymous: without credentials, as public buckets allow.
    """

    endpoint_url: str | None = None
    region: str | None = None
    profile: str | None = None
    anonymous: bool = False


@dataclass(frozen=True)
class StagedObject:
    """Something to bring.

    Attributes:
        uri: `s3://…`, `https://…`, or the absolute path of an archive on the file system.
        names_from: of an archive: a COCO file, by address or path, of which only the images are
            unpacked; None: all that is in it.
    """

    uri: str
    kind: ObjectKind
    names_from: str | None = None


@dataclass(frozen=True)
class StagedField:
    """A field of the spec that names something to bring, and gets the path it is brought to.

    Attributes:
        field: dotted path; items of lists by their index.
        names_field: of images in an archive: the field of the annotations that name them.
    """

    field: str
    object: StagedObject
    names_field: str | None = None


@dataclass(frozen=True)
class Staging:
    """What a stage brings.

    Attributes:
        cache: absolute path of the folder that everything brought is kept in, for later runs too.
        python_path: folders that a compute node's Python finds the libraries in.
        secrets: names of variables of the shell that submits, with which it is let in.
    """

    cache: str
    store: Store
    fields: tuple[StagedField, ...]
    python_path: tuple[str, ...] = ()
    secrets: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if not Path(self.cache).is_absolute():
            raise RequestError(f"the cache, {self.cache!r}, is not absolute")


@dataclass(frozen=True)
class Upload:
    """Where a stage puts a copy of the run.

    Attributes:
        to: `s3://…`, or an absolute path; the run's id is put behind it.
        python_path, secrets: as of Staging.
    """

    to: str
    store: Store
    python_path: tuple[str, ...] = ()
    secrets: tuple[str, ...] = ()
