"""What pins a container image, or a file of weights: a digest once, something cheap to compare
ever after.

Standard library only.
"""

from __future__ import annotations

import hashlib
import json
import subprocess
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path

from rtdetr_slurm.errors import SiteError
from rtdetr_slurm.files import sha256_of, write_atomic
from rtdetr_slurm.places import user_folder
from rtdetr_slurm.records import BadRecord, checked, read_json

_VERSION_LABEL = "org.opencontainers.image.version"
_HEAD_BYTES = 64 * 1024
_IMAGE = "container image"
_SIF_MAGIC, _SIF_AT, _SQUASHFS_MAGIC = b"SIF_MAGIC", 32, b"hsqs"
"""How images begin, a SIF behind a line for shells."""


@dataclass(frozen=True)
class FileRecord:
    """A file as it was when the run was submitted.

    Attributes:
        size: bytes; None for a sandbox folder, which nothing pins.
        head_sha256: digest of the first 64 KiB. A SIF's header holds its own id, its build time
            and the sizes of its parts, so another image differs there.
        sha256: digest of the whole file.
    """

    path: str
    size: int | None
    head_sha256: str | None
    sha256: str | None = None


@dataclass(frozen=True)
class ImageRecord(FileRecord):
    """A container image as it was when the run was submitted.

    Attributes:
        version: the image's label org.opencontainers.image.version; None when nobody can read it.
    """

    version: str | None = None


@dataclass(frozen=True)
class _Remembered:
    sha256: str
    version: str | None


@dataclass(frozen=True)
class _Cache:
    images: Mapping[str, _Remembered]


def glance(path: Path, what: str = _IMAGE) -> ImageRecord:
    """The cheap part of a record.

    Args:
        what: the file is, in words.

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
        raise _unreadable(path, error, what) from error


def is_image(path: Path) -> bool:
    """Whether a file is what apptainer can run: a SIF, or a bare squashfs.

    Raises:
        OSError: it cannot be read.
    """
    with path.open("rb") as stream:
        head = stream.read(_SIF_AT + len(_SIF_MAGIC))
    return head[_SIF_AT:] == _SIF_MAGIC or head.startswith(_SQUASHFS_MAGIC)


def _unreadable(path: Path, error: OSError, what: str) -> SiteError:
    remedy = "it must be on a file system that every node sees"
    if what == _IMAGE:
        remedy = (
            "build it from the Apptainerfile on a file system that every node sees, and name it "
            "as `image` in the site profile"
        )
    return SiteError(f"{what} {path}: {error.strerror}; {remedy}")


def cache_file(environ: Mapping[str, str]) -> Path | None:
    """Where this user's digests are remembered; None for a user without a home."""
    cache = user_folder("CACHE", ".cache", environ)
    return cache and cache / "rtdetr-slurm" / "images.json"


def check_unchanged(recorded: FileRecord, what: str = _IMAGE) -> None:
    """Compare a file with its record in run.json, cheaply.

    Raises:
        SiteError: it is gone, or another one is in its place.
    """
    now = glance(Path(recorded.path), what)
    if (now.size, now.head_sha256) != (recorded.size, recorded.head_sha256):
        raise SiteError(
            f"{what} {now.path} is not the one this run was submitted with "
            f"(size {now.size}, was {recorded.size}); submit again to use the new one"
        )


def record_image(
    path: Path,
    demanded: str | None,
    apptainer: str,
    cache: Path | None,
    on_note: Callable[[str], None],
) -> ImageRecord:
    """The full record of an image; what costs time is done once and remembered in `cache`.

    Args:
        demanded: SHA-256 that the site profile asks for, or None.
        apptainer: the program that reads the image's labels, where this machine has it.
        cache: a file; without one, or with one that cannot be used, all is done each time.
        on_note: is told what takes its time, and what could not be remembered.

    Raises:
        SiteError: the image is missing, or its digest is not the demanded one.
    """
    seen = glance(path)
    if seen.size is None:
        if demanded is not None:
            raise SiteError(f"{path} is a folder; a sha256 can only be demanded of a SIF file")
        return replace(seen, version=_label_version(path, apptainer))
    try:
        sha256, version = _remembered(path, seen, apptainer, cache, on_note)
    except OSError as error:
        raise _unreadable(path, error, _IMAGE) from error
    if demanded is not None and sha256 != demanded:
        raise SiteError(
            f"container image {path} has sha256 {sha256}; the site profile demands {demanded}"
        )
    return replace(seen, sha256=sha256, version=version)


def site_weights(name: str) -> str:
    """What a file of weights of the site profile is, in words."""
    return f"models.{name} of the site profile,"


def record_weights(
    path: Path, name: str, cache: Path | None, on_note: Callable[[str], None]
) -> FileRecord:
    """The full record of a file of weights that the site profile has as `name`; otherwise as
    record_image.

    Raises:
        SiteError: it cannot be read.
    """
    what = site_weights(name)
    seen = glance(path, what)
    try:
        sha256, _ = _remembered(path, seen, None, cache, on_note)
    except OSError as error:
        raise _unreadable(path, error, what) from error
    return FileRecord(seen.path, seen.size, seen.head_sha256, sha256)


def record_file(path: Path) -> FileRecord:
    """The full record of another file.

    Raises:
        SiteError: it cannot be read.
    """
    seen = glance(path, "file")
    try:
        return FileRecord(seen.path, seen.size, seen.head_sha256, sha256_of(path))
    except OSError as error:
        raise _unreadable(path, error, "file") from error


def _remembered(
    path: Path,
    seen: ImageRecord,
    apptainer: str | None,
    cache: Path | None,
    on_note: Callable[[str], None],
) -> tuple[str, str | None]:
    key = _key(path, seen)
    known = _read_cache(cache)
    if key in known:
        return known[key].sha256, known[key].version
    # Seconds for a large image, once; the user should know what takes them.
    on_note(f"computing the digest of {path} (once)")
    version = None if apptainer is None else _label_version(path, apptainer)
    found = _Remembered(sha256_of(path), version)
    _remember(cache, key, found, on_note)
    return found.sha256, found.version


def record_new(
    partial: Path,
    target: Path,
    demanded: str | None,
    apptainer: str,
    cache: Path | None,
    on_note: Callable[[str], None],
) -> ImageRecord:
    """Put a new image into its place, and remember its digest under that name.

    Args:
        partial: the new image, in the folder of `target`.
        demanded, apptainer, cache, on_note: as of record_image.

    Raises:
        SiteError: its digest is not the demanded one; `target` is as it was.
        OSError: it cannot be read or moved.
    """
    found = _Remembered(sha256_of(partial), _label_version(partial, apptainer))
    if demanded is not None and found.sha256 != demanded:
        raise SiteError(f"the new image has sha256 {found.sha256}; {demanded} is demanded")
    partial.replace(target)
    seen = glance(target)
    _remember(cache, _key(target, seen), found, on_note)
    return replace(seen, sha256=found.sha256, version=found.version)


def _key(path: Path, seen: ImageRecord) -> str:
    facts = path.stat()
    return f"{path}:{facts.st_size}:{facts.st_mtime_ns}:{facts.st_ino}:{seen.head_sha256}"


def _remember(
    cache: Path | None, key: str, found: _Remembered, on_note: Callable[[str], None]
) -> None:
    if cache is None:
        return
    text = json.dumps(asdict(_Cache({**_read_cache(cache), key: found})), indent=1)
    try:
        cache.parent.mkdir(parents=True, exist_ok=True)
        write_atomic(cache, text + "\n", mode=0o600)
    except OSError as error:
        on_note(f"the digest cannot be remembered in {cache}: {error.strerror}")


def _read_cache(cache: Path | None) -> Mapping[str, _Remembered]:
    """What is remembered; nothing where that cannot be read, for it can be found out again."""
    try:
        return {} if cache is None else checked(_Cache, read_json(cache), cache).images
    except (FileNotFoundError, BadRecord):
        return {}


def _label_version(path: Path, apptainer: str) -> str | None:
    argv = [apptainer, "inspect", "--json", "--labels", str(path)]
    try:
        done = subprocess.run(
            argv, stdin=subprocess.DEVNULL, capture_output=True, timeout=60, check=True
        )
        version = json.loads(done.stdout)["data"]["attributes"]["labels"][_VERSION_LABEL]
    except (OSError, subprocess.SubprocessError, ValueError, KeyError, TypeError):
        return None  # many login nodes have no apptainer; the digest pins the image all the same
    return version if isinstance(version, str) else None
