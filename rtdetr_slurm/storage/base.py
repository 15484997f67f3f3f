"""What all places of objects have in common. Standard library only."""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Protocol, TypeVar

from rtdetr_slurm.errors import ActionError, SiteError
from rtdetr_slurm.resolved_spec import shown_uri

T = TypeVar("T")

CONNECT_S, SILENT_S = 10.0, 30.0
"""How long a connection may take, and how long nothing may come through one."""
AGAIN = frozenset({408, 425, 429, 500, 502, 503, 504})
"""Answers of servers that may be another one the next time."""
QUICK: Sequence[float] = (0.3, 1.0)
PATIENT: Sequence[float] = (0.2, 0.5, 1.0, 2.0, 4.0, 8.0, 16.0)
"""Seconds between two tries: of a question that somebody waits for, and of a piece of an object."""


@dataclass(frozen=True)
class ObjectInfo:
    """What its place says of an object.

    Attributes:
        uri: its address, which may hold a signature: for messages and records there is `shown`.
        size: bytes.
        etag: what is another one when the content is; empty where its place says nothing.
        name: last part of its address; of a listed object, its path below what was listed.
    """

    uri: str = field(repr=False)
    size: int
    etag: str
    name: str

    @property
    def shown(self) -> str:
        return shown_uri(self.uri)


class Reader(Protocol):
    """Reads an object; for many threads at once where `ranged`.

    Attributes:
        ranged: whether any piece can be had without those before it.
    """

    ranged: bool

    def read_range(self, start: int, length: int) -> bytes:
        """So many bytes, all of them; a connection that breaks is made again.

        Raises:
            Changed: it is not the object any more that was asked about.
            Unreachable: it could not be had in many tries.
            RequestError: it is gone, or may not be read.
        """

    def close(self) -> None: ...


class Unreachable(SiteError):
    """The place of an object does not answer, or breaks off again and again."""


class Changed(ActionError):
    """An object was replaced while it was read."""

    def __init__(self, info: ObjectInfo, now: str) -> None:
        super().__init__(
            f"{info.shown} was changed while it was read: it was {info.size} bytes with ETag "
            f"{info.etag or '(none)'}, {now}; start again once it is complete"
        )


class Transient(Exception):
    """What went wrong this time and may go right the next; for people, without any secret."""


def patiently(uri: str, attempt: Callable[[], T], waits: Sequence[float]) -> T:
    """What `attempt` returns, which is called again after each wait when it raises Transient.

    Raises:
        Unreachable: it did so each time.
    """
    for wait in (*waits, None):
        try:
            return attempt()
        except Transient as error:
            if wait is None:
                tries = len(waits) + 1
                raise Unreachable(f"{shown_uri(uri)}: {error} ({tries} tries)") from None
            pause(wait)
    raise AssertionError


def pause(seconds: float) -> None:
    """About so long: many who were refused at once do not come back at once."""
    time.sleep(seconds * random.uniform(0.7, 1.3))


def whole(content: bytes, length: int) -> bytes:
    """`content`, which is of this length.

    Raises:
        Transient: it is not.
    """
    if len(content) != length:
        raise Transient(f"broke off after {len(content)} of {length} bytes")
    return content
