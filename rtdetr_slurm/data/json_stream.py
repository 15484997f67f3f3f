"""A large JSON object entry by entry: its lists are never in memory as a whole.

Standard library only.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NoReturn, TextIO

CHUNK = 1 << 18
"""Characters to read at a time; an entry may be longer."""

_SPACE = re.compile(r"[ \t\n\r]*")
_decode = json.JSONDecoder().raw_decode


class NotJson(ValueError):
    """The file does not hold one JSON object; the message says what it holds, and where."""


def stream_object(path: Path) -> Iterator[tuple[str, Any]]:
    """The members of the object that a file holds, in the file's order.

    A list comes as an iterator over its entries, which is good until the next member. UTF-8, with
    or without a byte order mark.

    Raises:
        NotJson: while iterating, also over a list.
        OSError, UnicodeDecodeError: the file cannot be read, or is not UTF-8.
    """
    with path.open(encoding="utf-8-sig") as stream:
        text = _Text(stream)
        if text.peek() != "{":
            # What is not JSON at all fails here, with its place.
            kind = "list" if text.peek() == "[" else type(text.value()).__name__
            raise NotJson(f"its top level is a {kind}, not an object")
        text.take("{")
        keys: set[str] = set()
        closing = text.take("}") if text.peek() == "}" else ","
        while closing == ",":
            key = _key(text)
            if key in keys:
                text.fail(f"a second {key!r}")
            keys.add(key)
            if text.peek() == "[":
                entries = _entries(text)
                yield key, entries
                for _ in entries:
                    pass
            else:
                yield key, text.value()
            closing = text.take(",}")
        if text.peek():
            text.fail("Extra data")


def _key(text: _Text) -> str:
    if text.peek() != '"':
        text.fail("Expecting property name enclosed in double quotes")
    key: str = text.value()
    text.take(":")
    return key


def _entries(text: _Text) -> Iterator[Any]:
    text.take("[")
    if text.peek() == "]":
        text.take("]")
        return
    yield text.value()
    while text.take(",]") == ",":
        yield text.value()


class _Text:
    """A text file of which only the part being read is in memory."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream
        self._text, self._at = "", 0
        self._lines, self._column = 0, 0  # before the part in memory

    def peek(self) -> str:
        """The next character that is not white space; empty at the end."""
        while True:
            space = _SPACE.match(self._text, self._at)
            assert space is not None
            self._at = space.end()
            if self._at < len(self._text):
                return self._text[self._at]
            if not self._read_on():
                return ""

    def take(self, expected: str) -> str:
        """Pass the next character, which must be one of `expected`."""
        found = self.peek()
        if not found or found not in expected:
            self.fail("Expecting " + " or ".join(repr(one) for one in expected))
        self._at += 1
        return found

    def value(self) -> Any:
        """Pass the next value, whole."""
        self.peek()
        while True:
            try:
                value, end = _decode(self._text, self._at)
            except RecursionError:
                self.fail("nested too deeply")
            except ValueError as error:  # also where the part in memory ends within the value
                if not self._read_on():
                    self._fail_decoding(error)
            else:
                # A number may go on in the next part, after as much as "e-" in this one.
                if end + 3 <= len(self._text) or not self._read_on():
                    self._at = end
                    return value

    def fail(self, problem: str, at: int | None = None) -> NoReturn:
        """Raise NotJson with the place in the file."""
        lines, column = self._place(self._at if at is None else at)
        raise NotJson(f"it is not JSON: {problem} at line {lines + 1} column {column + 1}")

    def _fail_decoding(self, error: ValueError) -> NoReturn:
        if isinstance(error, json.JSONDecodeError):
            self.fail(error.msg, error.pos)
        self.fail("a number of too many digits in what begins")

    def _read_on(self) -> bool:
        """Forget what was passed and read more, the more the longer the value; False at the end."""
        more = self._stream.read(max(CHUNK, len(self._text) - self._at))
        if more:
            self._lines, self._column = self._place(self._at)
            self._text, self._at = self._text[self._at :] + more, 0
        return bool(more)

    def _place(self, at: int) -> tuple[int, int]:
        """Lines, and characters in the last one, before a position of the part in memory."""
        lines = self._text.count("\n", 0, at)
        if not lines:
            return self._lines, self._column + at
        return self._lines + lines, at - self._text.rindex("\n", 0, at) - 1
