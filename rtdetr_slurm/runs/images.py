"""What pins a container image: a digest once, something cheap to compare ever after.

Standard library only.
"""

from __future__ import annotations

import hashlib
import json
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from rtdetr_slurm.errors import SiteError
from rtdetr_slurm.files import sha256_of, write_atomic

_VERSION_LABEL = "org.opencontainers.image.version"
_HEAD_BYTES = 64 * 1024


@dataclass(frozen=True)
class ImageRecord:
    """A container image as it was when the run was submitted.

    Attributes:
        size: bytes; None for a sandbox folder, which nothing pins.
        head_sha256: digest of the first 64 KiB. A SIF's header holds its own id, its build time
            and the sizes of its parts, so another image differs there.
        sha256: digest of the whole file.
        version: the image's label org.opencontainers.image.version; None when nobody can read it.
    """

    path: str
    size: int | None
    head_sha256: str | None
    sha256: str | None = None
    version: str | None = None

    def to_json(self) -> dict[str, Any]:
        return asdict(self)


def glance(path: Path) -> ImageRecord:
    """The cheap part of an image's record.

    Raises:
        SiteError: there is no such image here.
    """
    try:
        if path.is_dir():
            return ImageRecord(str(path), None, None)
        with path.open("rb") as stream:
            head = stream.read(_HEAD_BYTES)
        return ImageRecord(str(path), path.stat().st_size, hashlib.sha256(head).hexdigest())
    except OSError as error:
        raise SiteError(
            f"container image {path}: {error.strerror}; build it from the Apptainerfile on a file "
            "system that every node sees, and name it as `image` in the site profile"
        ) from error


def check_unchanged(recorded: Mapping[str, Any]) -> None:
    """Compare an image with its record in run.json, cheaply.

    Raises:
        SiteError: it is gone, or another one is in its place.
    """
    now = glance(Path(recorded["path"]))
    if (now.size, now.head_sha256) != (recorded["size"], recorded["head_sha256"]):
        raise SiteError(
            f"container image {now.path} is not the one this run was submitted with "
            f"(size {now.size}, was {recorded['size']}); submit again to use the new one"
        )


def record_image(path: Path, demanded: str | None, apptainer: str, cache: Path) -> ImageRecord:
    """The full record of an image; what costs time is done once and remembered in `cache`.

    Args:
        demanded: SHA-256 that the site profile asks for, or None.
        apptainer: the program that reads the image's labels, where this machine has it.

    Raises:
        SiteError: the image is missing, or its digest is not the demanded one.
    """
    seen = glance(path)
    if seen.size is None:
        if demanded is not None:
            raise SiteError(f"{path} is a folder; a sha256 can only be demanded of a SIF file")
        return replace(seen, version=_label_version(path, apptainer))
    sha256, version = _remembered(path, seen, apptainer, cache)
    if demanded is not None and sha256 != demanded:
        raise SiteError(
            f"container image {path} has sha256 {sha256}; the site profile demands {demanded}"
        )
    return replace(seen, sha256=sha256, version=version)


def _remembered(
    path: Path, seen: ImageRecord, apptainer: str, cache: Path
) -> tuple[str, str | None]:
    facts = path.stat()
    key = f"{path}:{facts.st_size}:{facts.st_mtime_ns}:{facts.st_ino}:{seen.head_sha256}"
    try:
        known = json.loads(cache.read_text(encoding="utf-8"))
    except (FileNotFoundError, json.JSONDecodeError):
        known = {}
    if key not in known:
        # Seconds for a large image, once; the user should know what takes them.
        print(f"computing the digest of {path} (once)", file=sys.stderr, flush=True)
        known[key] = [sha256_of(path), _label_version(path, apptainer)]
        cache.parent.mkdir(parents=True, exist_ok=True)
        write_atomic(cache, json.dumps(known, indent=1) + "\n")
    sha256, version = known[key]
    return sha256, version


def _label_version(path: Path, apptainer: str) -> str | None:
    argv = [apptainer, "inspect", "--json", "--labels", str(path)]
    try:
        done = subprocess.run(
            argv, stdin=subprocess.DEVNULL, capture_output=True, timeout=60, check=True
        )
        labels = json.loads(done.stdout)["data"]["attributes"]["labels"]
    except (OSError, subprocess.SubprocessError, ValueError, KeyError, TypeError):
        return None  # many login nodes have no apptainer; the digest pins the image all the same
    version = labels.get(_VERSION_LABEL)
    return version if isinstance(version, str) else None
