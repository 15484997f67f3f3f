"""Encrypted model files, as far as their content does not matter. Standard library only.

A file is a header, chunks, and a digest:

    header    magic, version, scrypt's parameters, bytes of text per chunk, salt, and a proof: an
              HMAC of all that with half of what scrypt makes of key and salt
    chunks    AES-256-GCM with the other half, each with its tag (cipher.py)
    digest    SHA-256 of all before it

So whoever has the key knows whether it is this file's, and whoever has none whether it is whole.
"""

from __future__ import annotations

import hashlib
import hmac
import os
import secrets
import stat
import struct
import sys
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path
from typing import BinaryIO, NoReturn

from rtdetr_slurm.contract import ENCRYPTION_VERSION, Env
from rtdetr_slurm.errors import NewerVersion, RequestError, explained
from rtdetr_slurm.records import open_file
from rtdetr_slurm.resolved_spec import FILE_URI, local_path

MAGIC = b"RTDETRkX"
_LAYOUT = struct.Struct(">8s4BI16s")
_PROOF_BYTES = 32
HEADER_BYTES = _LAYOUT.size + _PROOF_BYTES
TAG_BYTES = 16
DIGEST_BYTES = 32

COST, BLOCK, LANES = 15, 8, 3
"""Of scrypt: N is 2 to the power of COST; 32 MiB, a quarter of a second."""
CHUNK_BYTES = 1024 * 1024
_MOST = (17, 8, 8, 64 * 1024 * 1024)
"""More of these would hold up whoever opens a made-up file."""
_BLOCK_BYTES = 4 * 1024 * 1024
_MOST_KEY_BYTES = 4096

HOW_TO_GIVE = f"in the environment as {Env.ENCRYPTION_KEY}, or in encryption_key"


# --- keys ----------------------------------------------------------------------------------
def read_key(value: str) -> str:
    """The key that a value stands for: the content of a `file:///…`, else itself.

    Raises:
        RequestError: the file cannot be read, or others can read it; or this is no key.
    """
    key = _key_in_file(value) if value.startswith(FILE_URI) else value
    if not key or "\0" in key or len(key) > _MOST_KEY_BYTES:
        raise RequestError(
            f"the encryption key is empty, too long or no text; give it {HOW_TO_GIVE}"
        )
    if key is value and key.startswith("/") and Path(key).is_file():
        raise RequestError(f"the encryption key is the path of a file; write file://{key}")
    return key


def _key_in_file(uri: str) -> str:
    path = local_path(uri)
    assert path is not None
    try:
        with open_file(path) as stream:
            mode = stat.S_IMODE(os.fstat(stream.fileno()).st_mode)
            content = stream.read(_MOST_KEY_BYTES + 1)
    except OSError as error:
        raise explained(error) from None
    if mode & 0o077:
        raise RequestError(
            f"others may read the key file {path} (mode {mode:04o}): chmod 600 {path}"
        )
    try:
        return content.decode().rstrip("\r\n")
    except UnicodeDecodeError:
        raise RequestError(f"the key file {path} is not UTF-8 text") from None


def restart_without_key(words: Sequence[str], key: str) -> NoReturn:
    """Begin this program anew with `words` behind its name, and the key in its environment: every
    user of the machine can read a command line."""
    os.environ[Env.ENCRYPTION_KEY] = key
    program = sys.orig_argv[1 : len(sys.orig_argv) - len(sys.argv) + 1]
    os.execv(sys.executable, [sys.executable, *program, *words])


# --- headers -------------------------------------------------------------------------------
@dataclass(frozen=True)
class Header:
    """The head of an encrypted file.

    Attributes:
        cost, block, lanes: scrypt's parameters.
        chunk: bytes of text per chunk.
        proof: that a key is the file's.
    """

    cost: int
    block: int
    lanes: int
    chunk: int
    salt: bytes
    proof: bytes = b""

    def packed(self) -> bytes:
        numbers = (self.cost, self.block, self.lanes, self.chunk)
        return _LAYOUT.pack(MAGIC, ENCRYPTION_VERSION, *numbers, self.salt) + self.proof


def new_header(key: str) -> tuple[Header, bytes]:
    """The header of a new file, and what its chunks are encrypted with."""
    bare = Header(COST, BLOCK, LANES, CHUNK_BYTES, secrets.token_bytes(16))
    cipher_key, proof = _derived(bare, key)
    return replace(bare, proof=proof), cipher_key


def cipher_key(header: Header, key: str) -> bytes | None:
    """What the chunks of a file are encrypted with; None where the key is not the file's."""
    found, proof = _derived(replace(header, proof=b""), key)
    return found if hmac.compare_digest(proof, header.proof) else None


@lru_cache(maxsize=8)
def _derived(bare: Header, key: str) -> tuple[bytes, bytes]:
    secret = hashlib.scrypt(
        key.encode(errors="surrogateescape"),
        salt=bare.salt,
        n=1 << bare.cost,
        r=bare.block,
        p=bare.lanes,
        maxmem=256 * (bare.block << bare.cost) + 2**20,
        dklen=64,
    )
    return secret[:32], hmac.digest(secret[32:], bare.packed(), "sha256")


def read_header(stream: BinaryIO, path: Path) -> Header | None:
    """The header of the file that a stream is at the beginning of; None where it is not encrypted.

    Raises:
        RequestError: there is none that this version can read.
    """
    head = stream.read(HEADER_BYTES)
    if not head.startswith(MAGIC):
        return None
    if len(head) < HEADER_BYTES:
        raise RequestError(f"{path} is damaged: the header of an encrypted file was cut off")
    _, version, cost, block, lanes, chunk, salt = _LAYOUT.unpack_from(head)
    if version > ENCRYPTION_VERSION:
        raise NewerVersion(path, version, ENCRYPTION_VERSION)
    numbers = (cost, block, lanes, chunk)
    if any(not 0 < number <= most for number, most in zip(numbers, _MOST, strict=True)):
        raise RequestError(f"{path} is damaged: no header of an encrypted file has such numbers")
    return Header(cost, block, lanes, chunk, salt, head[_LAYOUT.size :])


# --- files ---------------------------------------------------------------------------------
def is_encrypted(path: Path) -> bool:
    """Whether a file says that it is.

    Raises:
        OSError, BadRecord: it cannot be read.
    """
    with open_file(path) as stream:
        return stream.read(len(MAGIC)) == MAGIC


def damage(path: Path) -> str | None:
    """None when an encrypted file is as it was written, else what is wrong with it.

    Raises:
        OSError, BadRecord: it cannot be read.
    """
    with open_file(path) as stream:
        try:
            read_header(stream, path)
        except RequestError as error:
            return str(error)
        stream.seek(0)
        left = os.fstat(stream.fileno()).st_size - DIGEST_BYTES
        digest = hashlib.sha256()
        while left > 0 and (block := stream.read(min(left, _BLOCK_BYTES))):
            digest.update(block)
            left -= len(block)
        whole = digest.digest() == stream.read()
    return None if whole else f"{path} is damaged: it is encrypted, and not as it was written"


def key_problem(path: Path, key: str | None) -> str | None:
    """Why a file cannot be opened with a key, or without one; None where it can, as one that is
    not encrypted.

    Raises:
        OSError, BadRecord: it cannot be read.
    """
    with open_file(path) as stream:
        try:
            header = read_header(stream, path)
        except RequestError as error:
            return str(error)
    if header is None:
        return None
    if key is None:
        return f"{path} is encrypted, and there is no key: give it {HOW_TO_GIVE}"
    if cipher_key(header, key) is None:
        return f"{path} is encrypted with another key than the one that is given"
    return None
