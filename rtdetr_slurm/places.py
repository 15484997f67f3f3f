"""Paths that people write: `~`, and folders that belong to the system. Standard library only.

A folder that is bound at such a place hides what the image has there: `/opt` its Python, `/usr`
all programs. Nobody means to keep data or results in one either.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path

from rtdetr_slurm.errors import RequestError

_WITH_ALL_BELOW = ("/proc", "/sys", "/dev", "/.singularity.d")
_BUT = "/dev/shm"
_THEMSELVES = frozenset(
    {
        *("/", "/bin", "/boot", "/etc", "/lib", "/lib32", "/lib64", "/libx32", "/opt", "/root"),
        *("/run", "/sbin", "/usr", "/var", "/opt/rtdetr"),
        *(f"/usr/{name}" for name in ("bin", "lib", "lib32", "lib64", "libexec", "sbin", "share")),
        *("/usr/local", "/usr/local/bin", "/usr/local/lib", "/var/lib"),
    }
)


def system_folder(path: str) -> str | None:
    """The folder of the system that an absolute path is, or for some lies in; None: none."""
    plain = "/" + os.path.normpath(path).lstrip("/")
    for folder in _WITH_ALL_BELOW:
        if f"{plain}/".startswith(f"{folder}/") and not f"{plain}/".startswith(f"{_BUT}/"):
            return folder
    return plain if plain in _THEMSELVES else None


def refusal(path: str) -> str | None:
    """What is wrong with a place to bind, read or write, in words; None where nothing is."""
    folder = system_folder(path)
    if folder is None:
        return None
    return (
        f"{folder} is a folder of the system, which would hide the image's own; allowed: a folder "
        "of your own"
    )


def with_home(path: str) -> str | None:
    """A path with `~` or `~user` filled in; None: there is no such user, or HOME is empty."""
    if path.startswith("~") and os.environ.get("HOME") == "":
        return None
    try:
        return str(Path(path).expanduser())
    except RuntimeError:
        return None


def user_folder(kind: str, default: str, environ: Mapping[str, str]) -> Path | None:
    """Where the XDG rules put this user's files of one kind; None for a user without a home.

    Args:
        kind: `CONFIG`, `CACHE`.
        default: the folder's name in the home folder.
    """
    named, home = environ.get(f"XDG_{kind}_HOME"), environ.get("HOME")
    if named and Path(named).is_absolute():  # a relative one is to be ignored
        return Path(named)
    return Path(home) / default if home else None


def expanded(text: str) -> Path:
    """A path that a user has written, `~` and `~name` filled in.

    Raises:
        RequestError: there is no such home folder.
    """
    path = with_home(text)
    if path is None:
        raise RequestError(f"{text}: this home folder is not known; set HOME, or write it out")
    return Path(path)
