"""Addresses of objects: `s3://bucket/key`, `https://…`, `http://…`, `file:///…`, and paths.
Standard library only.

The query of a web address may be a signature that lets its bearer in, so no message and no record
has it.
"""

from __future__ import annotations

import hashlib
import posixpath
import re
from pathlib import Path
from urllib.parse import parse_qsl, unquote, urlencode, urlsplit

from rtdetr_slurm.errors import RequestError
from rtdetr_slurm.resolved_spec import shown_uri

SCHEMES = ("s3", "https", "http", "file")
_SIGNATURE = re.compile(
    r"x-amz-.*|x-goog-.*|awsaccesskeyid|signature|expires|policy|key-pair-id|"
    r"s[ervptik]|sig|sk[a-z]+|.*token.*|.*secret.*|.*password.*|.*key",
    re.IGNORECASE,
)
"""Parameters of a query that let somebody in: of Amazon, Google, Azure, and whatever sounds so."""


def scheme_of(uri: str) -> str:
    """The scheme of an address, in lower case; `file` for a path.

    Raises:
        RequestError: no object has such an address, or it has a password in it.
    """
    match = re.match(r"([A-Za-z][A-Za-z0-9+.-]*)://", uri)
    if match is None:
        if not uri.startswith("/"):
            raise RequestError(f"{uri!r} is no address and no absolute path")
        return "file"
    scheme = match[1].lower()
    if scheme not in SCHEMES:
        raise RequestError(
            f"{shown_uri(uri)}: addresses of objects begin with "
            + ", ".join(f"{one}://" for one in SCHEMES)
        )
    if scheme != "s3" and "@" in uri.split("/")[2]:
        raise RequestError(
            f"{scheme}://…@{uri.split('/')[2].rpartition('@')[2]}/…: an address has no user and no "
            "password in it, for it is written into records; use one that needs none or is signed"
        )
    return scheme


def identity(uri: str) -> str:
    """What tells an object's address from others: as `shown_uri`, and a digest of those parts of
    the query that say which object is meant."""
    if scheme_of(uri) not in ("http", "https"):
        return uri
    parts = parse_qsl(urlsplit(uri).query, keep_blank_values=True)
    meant = sorted((key, value) for key, value in parts if not _SIGNATURE.fullmatch(key))
    if not meant:
        return shown_uri(uri)
    return f"{shown_uri(uri)}?{hashlib.sha256(urlencode(meant).encode()).hexdigest()[:16]}"


def bucket_and_key(uri: str) -> tuple[str, str]:
    """Of an address of S3.

    Raises:
        RequestError: it names no bucket.
    """
    bucket, _, key = uri.partition("://")[2].partition("/")
    if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]{1,254}", bucket):
        raise RequestError(f"{uri}: {bucket!r} is no bucket's name; expected s3://bucket/key")
    return bucket, key


def local_path(uri: str) -> Path:
    """Of a path or an address with `file:`.

    Raises:
        RequestError: it is on another machine.
    """
    if uri.startswith("/"):
        return Path(uri)
    parts = urlsplit(uri)
    if parts.netloc not in ("", "localhost"):
        raise RequestError(f"{uri} is on another machine; expected file:///absolute/path")
    return Path(unquote(parts.path))


def name_of(uri: str) -> str:
    """The last part of an address, for a file of that name.

    Raises:
        RequestError: it has none that a file may have.
    """
    path = shown_uri(uri).partition("://")[2].partition("/")[2] if "://" in uri else uri
    name = posixpath.basename(path.rstrip("/"))
    if scheme_of(uri) in ("http", "https"):
        name = unquote(name)
    if name in ("", ".", "..") or "/" in name or not name.isprintable() or len(name) > 200:
        raise RequestError(f"{shown_uri(uri)}: its last part is no name for a file")
    return name
