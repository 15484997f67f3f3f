"""Encrypted files: written and read piece by piece, and told apart whole, damaged and another's."""

from __future__ import annotations

import io
import os
import struct
from pathlib import Path
from typing import Any

import pytest

from rtdetr_slurm import encryption
from rtdetr_slurm.cipher import decrypted, encrypted
from rtdetr_slurm.encryption import (
    DIGEST_BYTES,
    HEADER_BYTES,
    MAGIC,
    TAG_BYTES,
    damage,
    is_encrypted,
    key_problem,
    read_key,
)
from rtdetr_slurm.errors import NewerVersion, RequestError, UserError

KEY = "correct horse"
CHUNK = 64
TEXT = bytes(range(256)) + b"the end"


@pytest.fixture(autouse=True)
def _quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(encryption, "COST", 4)
    monkeypatch.setattr(encryption, "CHUNK_BYTES", CHUNK)


def written(path: Path, text: bytes = TEXT, key: str = KEY, pieces: int = 10) -> Path:
    def write(stream: Any) -> None:
        for start in range(0, len(text), pieces):
            assert stream.write(memoryview(text)[start : start + pieces]) <= pieces
        stream.flush()

    with path.open("wb") as stream:
        encrypted(write, key)(stream)
    return path


def read(path: Path, key: str | None = KEY) -> bytes:
    with decrypted(path, key) as source:
        return source.read_bytes() if isinstance(source, Path) else source.read()


def rewritten(path: Path, body: bytes) -> Path:
    """Chunks that somebody has changed who knows how to make the digest right again."""
    content = path.read_bytes()[:HEADER_BYTES] + body
    path.write_bytes(content + encryption.hashlib.sha256(content).digest())
    assert damage(path) is None
    return path


def body(path: Path) -> bytes:
    return path.read_bytes()[HEADER_BYTES:-DIGEST_BYTES]


@pytest.mark.parametrize("size", [0, 1, CHUNK - 1, CHUNK, CHUNK + 1, 3 * CHUNK, len(TEXT)])
@pytest.mark.parametrize("pieces", [7, CHUNK, 1000])
def test_what_was_written_is_read(tmp_path: Path, size: int, pieces: int) -> None:
    path = written(tmp_path / "a", TEXT[:size], pieces=pieces)
    assert read(path) == TEXT[:size]
    chunks = max(-(-size // CHUNK), 1)
    assert path.stat().st_size == HEADER_BYTES + size + chunks * TAG_BYTES + DIGEST_BYTES
    assert (is_encrypted(path), damage(path), key_problem(path, KEY)) == (True, None, None)


def test_nothing_of_the_text_or_the_key_is_in_the_file_and_no_two_are_alike(tmp_path: Path) -> None:
    one, other = written(tmp_path / "a", b"x" * 200), written(tmp_path / "b", b"x" * 200)
    assert b"xxx" not in one.read_bytes()
    assert KEY.encode() not in one.read_bytes()
    assert body(one) != body(other)
    parts = [body(one)[start : start + 60] for start in (0, CHUNK + TAG_BYTES)]
    assert parts[0] != parts[1]


def test_it_is_read_from_anywhere(tmp_path: Path) -> None:
    with decrypted(written(tmp_path / "a"), KEY) as stream:
        assert isinstance(stream, io.BufferedReader)
        assert stream.seek(-7, os.SEEK_END) == len(TEXT) - 7
        assert stream.read() == b"the end"
        stream.seek(CHUNK - 3)
        assert stream.read(2 * CHUNK) == TEXT[CHUNK - 3 : 3 * CHUNK - 3]
        assert stream.tell() == 3 * CHUNK - 3
        stream.seek(5, os.SEEK_CUR)
        assert stream.read(1) == TEXT[3 * CHUNK + 2 : 3 * CHUNK + 3]


def test_what_is_not_encrypted_is_left_as_it_is(tmp_path: Path) -> None:
    path = tmp_path / "plain"
    path.write_bytes(TEXT)
    for key in (None, KEY):
        assert read(path, key) == TEXT
        assert (is_encrypted(path), key_problem(path, key)) == (False, None)
    write = io.BytesIO().write
    assert encrypted(write, None) is write  # type: ignore[comparison-overlap, arg-type]


def test_another_key_or_none_is_told_from_damage(tmp_path: Path) -> None:
    path = written(tmp_path / "a")
    for key, problem in (
        ("Correct horse", "is encrypted with another key than the one that is given"),
        (None, "and there is no key: give it in the environment as RTDETR_ENCRYPTION_KEY, or in"),
    ):
        assert problem in str(key_problem(path, key))
        with pytest.raises(RequestError, match=problem):
            read(path, key)
    assert damage(path) is None, "no key is needed for this"


@pytest.mark.parametrize("at", [HEADER_BYTES + 3, HEADER_BYTES + 200, -DIGEST_BYTES - 1, -1])
def test_a_damaged_file_is_told_without_the_key(tmp_path: Path, at: int) -> None:
    path = written(tmp_path / "a")
    content = bytearray(path.read_bytes())
    content[at] ^= 1
    path.write_bytes(content)
    assert damage(path) == f"{path} is damaged: it is encrypted, and not as it was written"


@pytest.mark.parametrize("left", [len(MAGIC), HEADER_BYTES - 1, HEADER_BYTES, HEADER_BYTES + 90])
def test_a_torn_file_is_told(tmp_path: Path, left: int) -> None:
    path = written(tmp_path / "a")
    path.write_bytes(path.read_bytes()[:left])
    assert "damaged" in str(damage(path))
    with pytest.raises(RequestError, match="damaged"):
        read(path)


@pytest.mark.parametrize(
    "changed",
    [
        lambda chunks: [chunks[1], chunks[0], *chunks[2:]],
        lambda chunks: chunks[1:],
        lambda chunks: chunks[:-1],
        lambda chunks: [*chunks, chunks[-1]],
        lambda chunks: [chunks[0], chunks[0], *chunks[2:]],
        lambda chunks: [bytes([chunks[0][0] ^ 1]) + chunks[0][1:], *chunks[1:]],
        lambda chunks: [],
    ],
    ids=["order", "first gone", "last gone", "longer", "twice", "bit", "empty"],
)
def test_what_was_changed_on_purpose_is_refused(tmp_path: Path, changed: Any) -> None:
    path, size = written(tmp_path / "a"), CHUNK + TAG_BYTES
    whole = body(path)
    chunks = [whole[start : start + size] for start in range(0, len(whole), size)]
    rewritten(path, b"".join(changed(chunks)))
    assert key_problem(path, KEY) is None, "the header was left alone"
    with pytest.raises(RequestError, match="is damaged, or was changed: chunk"):
        read(path)


def test_headers_from_elsewhere_are_no_trap(tmp_path: Path) -> None:
    path = written(tmp_path / "a")
    content = path.read_bytes()
    numbers = struct.Struct(">4BI")
    at = len(MAGIC)
    for version, cost, chunk, problem in (
        (2, 4, 64, "version 2 is newer than version 1"),
        (1, 63, 64, "no header of an encrypted file has such numbers"),
        (1, 4, 0, "no header of an encrypted file has such numbers"),
        (1, 5, 64, "another key"),
    ):
        made = numbers.pack(version, cost, 8, 3, chunk)
        path.write_bytes(content[:at] + made + content[at + numbers.size :])
        assert problem in str(key_problem(path, KEY))
    newer = io.BytesIO(content[:at] + b"\x02" + content[at + 1 :])
    with pytest.raises(NewerVersion):
        encryption.read_header(newer, path)


def test_a_key_comes_from_a_file_that_nobody_else_may_read(tmp_path: Path) -> None:
    path = tmp_path / "a key"
    path.write_text("hunter2 ü\n")
    path.chmod(0o600)
    uri = f"file://{tmp_path}/a%20key"
    assert read_key(uri) == "hunter2 ü"
    assert read_key("hunter2") == "hunter2"
    path.chmod(0o640)
    for value, problem in (
        (uri, r"others may read the key file .* \(mode 0640\): chmod 600"),
        (str(path), "is the path of a file; write file:///"),
        (f"file://{tmp_path}/none", "No such file"),
        (f"file://{tmp_path}", "not a regular file"),
        ("a\0b", "empty, too long or no text"),
    ):
        with pytest.raises(UserError, match=problem) as caught:
            read_key(value)
        assert "hunter2" not in str(caught.value)
    path.chmod(0o600)
    for content, problem in ((b"\n", "empty"), (b"\xff", "not UTF-8"), (b"x" * 5000, "too long")):
        path.write_bytes(content)
        with pytest.raises(RequestError, match=problem):
            read_key(uri)
