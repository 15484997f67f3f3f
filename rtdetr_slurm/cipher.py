"""Writing and reading encrypted model files, chunk by chunk; encryption.py has their layout.

The chunks are a stream as in Hoang, Reyhanitabar, Rogaway and Vizár, "Online authenticated-
encryption and its nonce-reuse misuse-resistance" (2015): the nonce of each is its number and
whether it is the last, so that none can be left out, moved or added. The key is the file's own.
"""

from __future__ import annotations

import hashlib
import io
import os
import struct
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from rtdetr_slurm.encryption import (
    DIGEST_BYTES,
    HEADER_BYTES,
    TAG_BYTES,
    Header,
    cipher_key,
    key_problem,
    new_header,
    read_header,
)
from rtdetr_slurm.errors import RequestError

Write = Callable[[BinaryIO], object]


def encrypted(write: Write, key: str | None) -> Write:
    """What puts into a stream what `write` does, encrypted; `write` itself where there is no key.

    `write` may do nothing with the stream that it is given but write to it and flush it.
    """
    if key is None:
        return write

    def write_encrypted(stream: BinaryIO) -> None:
        sealing = _Sealing(stream, key)
        write(sealing)  # type: ignore[arg-type]
        sealing.finish()

    return write_encrypted


@contextmanager
def decrypted(path: Path, key: str | None) -> Iterator[Path | BinaryIO]:
    """A stream of the text of an encrypted file; the path of any other one.

    Raises:
        RequestError: the file is encrypted, and not with this key; or it cannot be read.
    """
    if problem := key_problem(path, key):
        raise RequestError(problem)
    with path.open("rb") as stream:
        header = read_header(stream, path)
        if header is None:
            yield path
            return
        opening = _Opening(stream, path, header, key or "")
        with io.BufferedReader(opening) as text:
            try:
                yield text
            finally:
                if opening.problem is not None:  # readers in C lose it on the way
                    raise opening.problem


def _nonce(number: int, last: bool) -> bytes:
    return struct.pack(">7xI?", number, last)


class _Sealing:
    """A stream that encrypts what is written to it."""

    def __init__(self, stream: BinaryIO, key: str) -> None:
        header, secret = new_header(key)
        self._stream, self._chunk, self._header = stream, header.chunk, header.packed()
        self._cipher = AESGCM(secret)
        self._text = bytearray()
        self._number = 0
        self._digest = hashlib.sha256()
        self._put(self._header)

    def write(self, data: Any) -> int:
        view = memoryview(data).cast("B")
        size = len(view)
        while len(view):
            if len(self._text) == self._chunk:  # and it is not the last
                self._seal(last=False)
            part = view[: self._chunk - len(self._text)]
            self._text += part
            view = view[len(part) :]
        return size

    def flush(self) -> None:
        """What is no whole chunk stays."""

    def finish(self) -> None:
        self._seal(last=True)
        self._stream.write(self._digest.digest())

    def _seal(self, *, last: bool) -> None:
        self._put(self._cipher.encrypt(_nonce(self._number, last), self._text, self._header))
        self._number += 1
        self._text.clear()

    def _put(self, data: bytes) -> None:
        self._digest.update(data)
        self._stream.write(data)


class _Opening(io.RawIOBase):
    """The text of an encrypted file.

    Attributes:
        problem: what has ended the reading, if anything has.
    """

    def __init__(self, stream: BinaryIO, path: Path, header: Header, key: str) -> None:
        secret = cipher_key(header, key)
        assert secret is not None
        self._stream, self._path, self._header = stream, path, header.packed()
        self._cipher = AESGCM(secret)
        self._chunk = header.chunk
        body = os.fstat(stream.fileno()).st_size - HEADER_BYTES - DIGEST_BYTES
        self._chunks = max(-(-body // (header.chunk + TAG_BYTES)), 1)
        self._size = body - self._chunks * TAG_BYTES
        self._at = 0
        self.problem: RequestError | None = None
        self._open: tuple[int, bytes] = (-1, b"")

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        start = {os.SEEK_SET: 0, os.SEEK_CUR: self._at, os.SEEK_END: self._size}[whence]
        self._at = max(start + offset, 0)
        return self._at

    def readinto(self, buffer: Any) -> int:
        if self._at >= self._size:
            if self._size <= 0:
                self._text_of(0)  # that there is nothing in it has to be true, too
            return 0
        number, start = divmod(self._at, self._chunk)
        part = self._text_of(number)[start : start + len(buffer)]
        buffer[: len(part)] = part
        self._at += len(part)
        return len(part)

    def _text_of(self, number: int) -> bytes:
        if self._open[0] != number:
            last = number == self._chunks - 1
            text = min(self._chunk, self._size - number * self._chunk)
            self._stream.seek(HEADER_BYTES + number * (self._chunk + TAG_BYTES))
            try:
                sealed = self._stream.read(text + TAG_BYTES)
                self._open = (
                    number,
                    self._cipher.decrypt(_nonce(number, last), sealed, self._header),
                )
            except (InvalidTag, ValueError):
                self.problem = RequestError(
                    f"{self._path} is damaged, or was changed: chunk {number} is not what was "
                    "encrypted"
                )
                raise self.problem from None
        return self._open[1]
