"""The folder for temporary files that a node has of its own, as the site names it."""

from __future__ import annotations

import os
import stat
from contextlib import suppress
from pathlib import Path

from rtdetr_slurm.errors import SiteError
from rtdetr_slurm.places import refusal, with_home


def scratch_folder(name: str | None) -> str | None:
    """The site's scratch folder on this node, with `$VAR` filled in here."""
    if name is None:
        return None
    path = with_home(os.path.expandvars(name))
    if path is None or "$" in path:
        raise SiteError(f"scratch '{name}' names a variable or a user that this node does not have")
    if reason := refusal(path):
        raise SiteError(f"scratch '{name}' is {path} on this node; {reason}")
    if not os.access(path, os.W_OK | os.X_OK):
        raise SiteError(f"scratch folder {path} is missing on this node, or not writable")
    return path


def own_folder(scratch: str) -> Path:
    """A folder in scratch that is this user's alone; made where there is none.

    Raises:
        SiteError: what is there is somebody else's, or others may change it.
        OSError: it cannot be made.
    """
    above = Path(scratch).stat().st_mode
    if above & stat.S_IWOTH and not above & stat.S_ISVTX:
        raise SiteError(
            f"scratch folder {scratch} lets everybody replace what others have in it; it needs the "
            "sticky bit (chmod +t), as /tmp has it"
        )
    folder = Path(scratch, f"rtdetr-slurm-{os.getuid()}")
    with suppress(FileExistsError):
        folder.mkdir(mode=0o700)
    found = folder.lstat()
    mine = stat.S_ISDIR(found.st_mode) and found.st_uid == os.getuid()
    if not mine or stat.S_IMODE(found.st_mode) & 0o077:
        raise SiteError(
            f"{folder} on this node is not a folder of your own that is closed to others (mode "
            "0700); whoever owns it must remove it"
        )
    return folder
