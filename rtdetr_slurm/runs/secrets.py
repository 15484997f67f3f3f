"""Secrets of a run: values that its jobs need and that no record, script, command line or log may
hold. Standard library only.

They lie in one file that only its owner can read, from the moment before the first job is sent
until the run has ended. It is beside the run's folder and not in it, so that no copy of a run takes
it along. A requeued job finds it again; Slurm never sees it.
"""

from __future__ import annotations

import json
import os
import stat
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path

from rtdetr_slurm.contract import SECRETS_PATTERN, Env
from rtdetr_slurm.errors import SiteError
from rtdetr_slurm.files import write_atomic
from rtdetr_slurm.plan.model import Stage
from rtdetr_slurm.records import BadRecord, checked, read_json

_OWNER_ONLY = 0o600


def secrets_file(run_dir: Path) -> Path:
    """Where the secrets of a run lie: on the file system of its folder, which its nodes see."""
    return run_dir.parent / SECRETS_PATTERN.format(uid=os.getuid(), run=run_dir.name)


def _own_folder(folder: Path) -> None:
    """Make a folder that is closed to others, or find it so.

    Raises:
        SiteError: it is another user's, or others can enter it.
        OSError: it cannot be made.
    """
    folder.mkdir(mode=0o700, exist_ok=True)
    found = folder.lstat()
    if not stat.S_ISDIR(found.st_mode) or found.st_uid != os.getuid() or found.st_mode & 0o077:
        raise SiteError(
            f"{folder} is to hold secrets and is not a folder of yours alone (mode 0700): remove it"
        )


def keep_secrets(run_dir: Path, stage: Stage, environ: Mapping[str, str]) -> None:
    """Put the secrets that a stage names into the run's private file, as `environ` has them.

    What is there already, of another stage or an earlier submission, stays.

    Raises:
        OSError: the file cannot be written.
        SiteError: its folder is not the user's alone.
        BadRecord: there is one that cannot be read.
    """
    if not stage.launch.secrets:
        return
    path = secrets_file(run_dir)
    _own_folder(path.parent)
    found = {name: environ[name] for name in stage.launch.secrets if environ.get(name)}
    # What is no character in UTF-8 becomes an escape of JSON's, and comes back as it was.
    write_atomic(path, json.dumps(_read(path) | found) + "\n", mode=_OWNER_ONLY)


def unset_secrets(run_dir: Path, stage: Stage, environ: Mapping[str, str]) -> list[str]:
    """The secrets that a stage names, that are not set here and that were not kept before.

    Raises:
        BadRecord: the file cannot be read.
    """
    names = stage.launch.secrets
    kept = _read(secrets_file(run_dir)) if names else {}
    return [name for name in names if not environ.get(name) and name not in kept]


def secrets_of(run_dir: Path, stage: Stage) -> dict[str, str]:
    """The secrets that a stage names and that were set when it was submitted.

    On this machine the key alone is kept: its jobs have the environment of `submit` itself.

    Raises:
        SiteError: they are gone, for the run had ended; or the file is damaged.
    """
    names, path = stage.launch.secrets, secrets_file(run_dir)
    if not names or (stage.launch.scheduler == "local" and Env.ENCRYPTION_KEY not in names):
        return {}
    if not path.exists():
        raise SiteError(
            f"{path} with the secrets of this run is gone: it is removed when a run has ended; "
            "submit again"
        )
    # Only what the plan names: a file cannot bring in a variable of its own.
    return {name: value for name, value in _read(path).items() if name in names}


def forget_secrets(run_dir: Path, needed: Callable[[], bool]) -> None:
    """Remove the file, if there is one, and what a `submit` that was killed while it wrote one has
    left of it.

    Args:
        needed: whether a job is to have them after all. Asked once they are out of the way: who
            says so later writes a file of its own, and what was there is put back for who said so
            before.

    Raises:
        OSError: that cannot be done.
    """
    path = secrets_file(run_dir)
    aside = path.with_name(f".{path.name}.aside")
    with suppress(FileNotFoundError):
        path.replace(aside)
    left = [*path.parent.glob(f".{path.name}.*")]
    keep = True
    try:
        keep = needed()
    finally:
        if keep and not path.exists():
            with suppress(FileNotFoundError):
                aside.replace(path)
    if not keep:
        for one in left:
            one.unlink(missing_ok=True)


def _read(path: Path) -> dict[str, str]:
    try:
        return checked(dict[str, str], read_json(path), path)
    except FileNotFoundError:
        return {}
    except BadRecord:
        # Its own words would quote from the file.
        raise BadRecord(path, "this file of secrets cannot be read; submit again") from None
