"""Objects, wherever they are: what there is, and reading it."""

from __future__ import annotations

from collections.abc import Iterator

from rtdetr_slurm.errors import RequestError
from rtdetr_slurm.plan.staging import Store
from rtdetr_slurm.resolved_spec import shown_uri
from rtdetr_slurm.storage import local, s3, web
from rtdetr_slurm.storage.address import scheme_of
from rtdetr_slurm.storage.base import ObjectInfo, Reader


def head(uri: str, store: Store) -> ObjectInfo:
    """What its place says of an object.

    Raises:
        RequestError: there is none, or it may not be read, and why.
        Unreachable: its place does not answer.
    """
    scheme = scheme_of(uri)
    if scheme == "s3":
        return s3.head(uri, store)
    return local.head(uri) if scheme == "file" else web.head(uri)


def listed(uri: str, store: Store) -> Iterator[ObjectInfo]:
    """All objects below a prefix, or files below a folder, by name.

    Raises:
        RequestError: it cannot be listed.
        Unreachable: its place does not answer.
    """
    scheme = scheme_of(uri)
    if scheme == "s3":
        return s3.listed(uri, store)
    if scheme == "file":
        return local.listed(uri)
    raise RequestError(
        f"{shown_uri(uri)}: a web server does not list what it has; name an archive there"
    )


def open_object(info: ObjectInfo, store: Store) -> Reader:
    """A reader of an object that `head` or `listed` has told of.

    Raises:
        RequestError, SiteError: it cannot be opened.
    """
    scheme = scheme_of(info.uri)
    if scheme == "s3":
        return s3.S3Reader(info, store)
    return local.LocalReader(info) if scheme == "file" else web.WebReader(info)
