"""Addresses in a spec: `s3://bucket/key`, `https://host/path`, `file:///path`. Pure."""

from __future__ import annotations

from pathlib import PurePosixPath
from urllib.parse import parse_qsl, urlsplit

from rtdetr_slurm.contract import HUGGING_FACE_CONFIG, HUGGING_FACE_WEIGHTS
from rtdetr_slurm.resolved_spec import FILE_URI, REMOTE, is_uri
from rtdetr_slurm.spec.dataset import PACKED_SUFFIXES

_FORMS = "a path, s3://bucket/key, https://host/path, or file:///path"
_SIGNATURES = frozenset(
    {
        *("awsaccesskeyid", "sig", "signature", "token", "access_token"),
        *(f"x-{who}-{what}" for who in ("amz", "goog") for what in ("signature", "credential")),
    }
)
"""Parts of a query that are as good as a password, in lower case."""


_NO_OBJECT = f"it names no file; allowed: {_FORMS}"


def is_packed(text: str) -> bool:
    """Whether a path or an address names an archive, by its suffix."""
    path = urlsplit(text).path if is_uri(text) else text
    return path.lower().endswith(PACKED_SUFFIXES)


def address_problem(text: str, holds: str | None = None) -> str | None:
    """What is wrong with an address; None where nothing is, and for a path.

    Args:
        holds: what its field says that is there: of `images` there may be all below a prefix.
    """
    if not is_uri(text) or text.startswith(FILE_URI):
        return None
    try:
        parts = urlsplit(text)
        host, secret = parts.hostname, parts.password or parts.username
    except ValueError as error:
        return f"it is no address ({error}); allowed: {_FORMS}"
    if not text.startswith(REMOTE):
        return f"nothing here fetches {parts.scheme}://; allowed: {_FORMS}"
    if secret:
        return "a spec holds no passwords; credentials come from the environment (docs/data.md)"
    if any(name.lower() in _SIGNATURES for name, _ in parse_qsl(parts.query)):
        return (
            "a signed address is a secret and expires; allowed: the plain address, with "
            "credentials in the environment (docs/data.md)"
        )
    if not host:
        return f"it names no {'bucket' if parts.scheme == 's3' else 'host'}; allowed: {_FORMS}"
    if parts.scheme == "s3" and (parts.query or parts.fragment):
        return "allowed: s3://bucket/key, without '?' and '#'"
    if holds == "weights" and PurePosixPath(parts.path).name in HUGGING_FACE_WEIGHTS:
        return (
            f"it is read together with the {HUGGING_FACE_CONFIG} beside it; allowed: the path of "
            "both, fetched before"
        )
    if holds != "images":
        return None if parts.path.strip("/") and not parts.path.endswith("/") else _NO_OBJECT
    if parts.scheme != "s3" and not is_packed(text):
        return (
            "only object stores tell what is below an address; allowed here: an archive "
            f"({', '.join(PACKED_SUFFIXES)}), or s3://bucket/prefix"
        )
    return None
