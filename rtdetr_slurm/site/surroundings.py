"""What the login node says about itself, for a draft of a profile."""

from __future__ import annotations

import os
import re
import shutil
from collections.abc import Iterator, Mapping
from pathlib import Path

from rtdetr_slurm.places import refusal
from rtdetr_slurm.site.draft import NETWORK_FILE_SYSTEMS, Folder, Surroundings

MOUNTS = Path("/proc/mounts")
_NAMED = ("SCRATCH", "WORK", "PROJECT", "HOME")
_PROXIES = ("HTTP_PROXY", "HTTPS_PROXY", "NO_PROXY", "http_proxy", "https_proxy", "no_proxy")


def look_around(user: str, environ: Mapping[str, str]) -> Surroundings:
    """All that can be seen from here."""
    mounts = mounted(MOUNTS.read_text(errors="replace"))
    return Surroundings(
        folders=tuple(_folders(mounts, user, environ)),
        apptainer=shutil.which("apptainer", path=environ.get("PATH", os.defpath)),
        modules=tuple(filter(None, environ.get("LOADEDMODULES", "").split(":"))),
        proxies=tuple(name for name in _PROXIES if environ.get(name)),
    )


def mounted(text: str) -> dict[str, str]:
    """Mount point → type of file system, from the text of /proc/mounts."""
    found = {}
    for line in text.splitlines():
        fields = line.split(" ")
        if len(fields) > 2:
            # A space in a name is \040 there.
            place = re.sub(r"\\([0-7]{3})", lambda match: chr(int(match[1], 8)), fields[1])
            found[place] = fields[2]
    return found


def file_system(path: Path, mounts: Mapping[str, str]) -> str:
    """The type of the file system that `path` is on."""
    above = (str(folder) for folder in (path, *path.parents))
    return next((mounts[place] for place in above if place in mounts), "unknown")


def _folders(mounts: Mapping[str, str], user: str, environ: Mapping[str, str]) -> Iterator[Folder]:
    """Folders that variables name, and those on network file systems, that this user writes to."""
    named = [Path(environ[name]) for name in _NAMED if environ.get(name, "").startswith("/")]
    shared = [Path(place) for place, kind in mounts.items() if kind in NETWORK_FILE_SYSTEMS]
    users = [folder / user for folder in shared]
    for folder in dict.fromkeys([*named, *users, *shared]):
        path = folder.resolve()
        if not (path.is_dir() and os.access(path, os.W_OK | os.X_OK)):
            continue
        if refusal(str(path / "rtdetr-runs")) is not None:
            continue
        try:
            free = shutil.disk_usage(path).free
        except OSError:
            continue
        yield Folder(str(folder), file_system(path, mounts), free)
