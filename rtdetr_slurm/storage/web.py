"""Objects on web servers, through urllib3. Addresses may be signed, so no text of the libraries,
which quotes them, is shown."""

from __future__ import annotations

import re
import threading
import urllib.request
from functools import cache
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from rtdetr_slurm.errors import RequestError
from rtdetr_slurm.resolved_spec import shown_uri
from rtdetr_slurm.storage.address import name_of
from rtdetr_slurm.storage.base import (
    AGAIN,
    CONNECT_S,
    PATIENT,
    QUICK,
    SILENT_S,
    Changed,
    ObjectInfo,
    Transient,
    patiently,
    whole,
)

if TYPE_CHECKING:
    from urllib3 import BaseHTTPResponse, PoolManager

_PASS_BYTES = 1 << 20


@cache
def _pool(proxy: str | None) -> PoolManager:
    import urllib3

    options: dict[str, Any] = {
        "maxsize": 32,
        "timeout": urllib3.Timeout(connect=CONNECT_S, read=SILENT_S),
        "retries": urllib3.Retry(total=None, connect=0, read=0, status=0, other=0, redirect=5),
    }
    if proxy is not None:
        return urllib3.ProxyManager(proxy, **options)
    return urllib3.PoolManager(**options)


def _get(uri: str, byte_range: str) -> BaseHTTPResponse:
    """The head of an answer; its body is still to be read.

    Raises:
        Transient, RequestError: there is none.
    """
    from urllib3.exceptions import HTTPError, LocationValueError

    parts = urlsplit(uri)
    proxy = urllib.request.getproxies().get(parts.scheme)
    if proxy and urllib.request.proxy_bypass(parts.hostname or ""):
        proxy = None
    headers = {"Range": byte_range, "Accept-Encoding": "identity"}
    try:
        answer: BaseHTTPResponse = _pool(proxy or None).request(
            "GET", uri, headers=headers, preload_content=False, decode_content=False
        )
    except LocationValueError:
        raise RequestError(f"{shown_uri(uri)} is no address of a web server") from None
    except (HTTPError, OSError) as error:
        raise Transient(f"the connection failed: {_cause(error)}") from None
    if answer.status in (200, 206, 416):
        return answer
    answer.close()
    if answer.status in AGAIN:
        raise Transient(f"the server answers {answer.status}")
    if answer.status in (404, 410):
        raise RequestError(f"{shown_uri(uri)} does not exist (the server answers {answer.status})")
    if answer.status in (401, 403):
        raise RequestError(
            f"{shown_uri(uri)}: the server refuses ({answer.status}); a signed address may have "
            "expired"
        )
    raise RequestError(f"{shown_uri(uri)}: the server answers {answer.status}")


def _cause(error: BaseException) -> str:
    reason = getattr(error, "reason", None)
    cause = reason if isinstance(reason, BaseException) else error
    said = [getattr(one, "verify_message", "") for one in cause.args]  # of a certificate
    return ": ".join(filter(None, [type(cause).__name__, *said]))


def head(uri: str) -> ObjectInfo:
    """Asked with GET for one byte, for a signed address lets nobody else in.

    Raises:
        RequestError, Unreachable.
    """
    if not urlsplit(uri).hostname:
        raise RequestError(f"{shown_uri(uri)} names no server")

    def ask() -> ObjectInfo:
        answer = _get(uri, "bytes=0-0")
        size = _size(answer)
        answer.close()
        if size is None:
            raise RequestError(
                f"{shown_uri(uri)}: the server does not say how large it is, so nobody could tell "
                "whether it was complete"
            )
        return ObjectInfo(uri, size, _validator(answer), name_of(uri))

    return patiently(uri, ask, QUICK)


def _size(answer: BaseHTTPResponse) -> int | None:
    """Of the whole object."""
    if answer.status == 200:
        length = answer.headers.get("Content-Length", "")
        return int(length) if length.isdecimal() else None
    match = re.fullmatch(r"bytes (?:\d+-\d+|\*)/(\d+)", answer.headers.get("Content-Range", ""))
    return int(match[1]) if match else None


def _validator(answer: BaseHTTPResponse) -> str:
    etag = answer.headers.get("ETag", "").strip()
    return etag.strip('"') or answer.headers.get("Last-Modified", "")


class WebReader:
    """An object, piece by piece; from a server that gives no pieces, as one stream that is begun
    anew for what it has passed."""

    def __init__(self, info: ObjectInfo) -> None:
        self._info = info
        self._lock = threading.Lock()
        self._stream: BaseHTTPResponse | None = None
        self._at = 0
        self.ranged = patiently(info.uri, self._gives_pieces, PATIENT)

    def _gives_pieces(self) -> bool:
        answer = _get(self._info.uri, "bytes=0-0")
        answer.close()
        return answer.status != 200

    def read_range(self, start: int, length: int) -> bytes:
        if not length:
            return b""
        if self.ranged:
            return patiently(self._info.uri, lambda: self._piece(start, length), PATIENT)
        with self._lock:
            return patiently(self._info.uri, lambda: self._next(start, length), PATIENT)

    def _piece(self, start: int, length: int) -> bytes:
        answer = _get(self._info.uri, f"bytes={start}-{start + length - 1}")
        try:
            self._check(answer)
            if answer.status != 206:
                raise Transient("the server gives no pieces any more")
            return whole(_read(answer, length), length)
        finally:
            answer.close()

    def _next(self, start: int, length: int) -> bytes:
        if self._stream is None or start < self._at:
            self.close()
            self._stream, self._at = _get(self._info.uri, "bytes=0-"), 0
            self._check(self._stream)
        try:
            while self._at < start:
                passed = _read(self._stream, min(_PASS_BYTES, start - self._at))
                self._at += len(whole(passed, min(_PASS_BYTES, start - self._at)))
            content = whole(_read(self._stream, length), length)
            self._at += length
        except Transient:
            self.close()
            raise
        return content

    def _check(self, answer: BaseHTTPResponse) -> None:
        if (_size(answer), _validator(answer)) != (self._info.size, self._info.etag):
            now = f"and is {_size(answer)} bytes with ETag {_validator(answer) or '(none)'} now"
            answer.close()
            raise Changed(self._info, now)

    def close(self) -> None:
        if self._stream is not None:
            self._stream.close()
            self._stream = None


def _read(answer: BaseHTTPResponse, length: int) -> bytes:
    from urllib3.exceptions import HTTPError

    pieces, rest = [], length
    try:
        while rest and (piece := answer.read(rest)):
            pieces.append(piece)
            rest -= len(piece)
    except (HTTPError, OSError) as error:
        raise Transient(f"the connection broke off: {_cause(error)}") from None
    return b"".join(pieces)
