"""Whether an S3 service can be reached from here. Standard library only: nodes ask it, too.

Credentials are neither used nor shown: any answer over HTTP proves that the way is open.
"""

from __future__ import annotations

import urllib.error
import urllib.request
from collections.abc import Mapping
from urllib.parse import urlsplit

_ENDPOINTS = ("AWS_ENDPOINT_URL_S3", "AWS_ENDPOINT_URL")
_SIGNS = ("AWS_ACCESS_KEY_ID", "AWS_PROFILE", "AWS_WEB_IDENTITY_TOKEN_FILE")
_TIMEOUT_S = 10.0


def s3_endpoint(given: Mapping[str, str | None], environ: Mapping[str, str]) -> str | None:
    """The address of the S3 service that jobs are to use; None where nothing says so.

    Args:
        given: `env` of the site profile: name to value, None for the host's own.
        environ: the host's.
    """

    def value(name: str) -> str | None:
        return given[name] or environ.get(name) if name in given else None

    for name in _ENDPOINTS:
        if named := value(name):
            return named
    if not any(value(name) for name in _SIGNS):
        return None
    region = value("AWS_REGION") or value("AWS_DEFAULT_REGION") or "us-east-1"
    return f"https://s3.{region}.amazonaws.com"


def reach(url: str, timeout_s: float = _TIMEOUT_S) -> str | None:
    """Why the service behind `url` cannot be reached; None where it answers."""
    if urlsplit(url).scheme not in ("http", "https"):
        return "the address is none of http:// or https://"
    request = urllib.request.Request(_plain(url), method="HEAD")
    try:
        with urllib.request.urlopen(request, timeout=timeout_s):
            return None
    except urllib.error.HTTPError:
        return None  # it answers, and wants to know who asks
    except (OSError, ValueError) as error:
        return str(getattr(error, "reason", error)) or type(error).__name__


def shown_address(url: str) -> str:
    """The address without what may be secret in it."""
    return _plain(url)


def _plain(url: str) -> str:
    parts = urlsplit(url)
    return f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}"
