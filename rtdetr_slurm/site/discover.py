"""Finding the site profiles of a machine."""

from __future__ import annotations

import os
import shutil
import stat
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from rtdetr_slurm.contract import CACHE_DIR, Env
from rtdetr_slurm.errors import SiteError
from rtdetr_slurm.places import expanded, user_folder
from rtdetr_slurm.resources import specs_dir
from rtdetr_slurm.site.load import load_site
from rtdetr_slurm.site.profile import Gpu, Site
from rtdetr_slurm.site.variables import notes_on_secrets, notes_on_variables

ADMIN_PROFILE = Path("/etc/rtdetr-slurm/site.yaml")
LOCAL = "local"
"""The word for the built-in profile, for `--site` and in the environment."""


class NoProfile(SiteError):
    """This machine has Slurm, and nobody has said how to use it."""


@dataclass(frozen=True)
class FoundSite:
    """A site, the files it came from (highest precedence first), and what to tell the user."""

    site: Site
    sources: tuple[Path, ...] = ()
    notes: tuple[str, ...] = ()

    @property
    def run_root(self) -> Path:
        """Absolute path of the folder with the site's runs."""
        return Path(self.site.run_root).absolute()

    @property
    def cache_root(self) -> Path:
        """Absolute path of the folder that everything fetched and unpacked is kept in."""
        own = self.site.cache_root
        return self.run_root / CACHE_DIR if own is None else Path(own)


def find_site(
    option: str | None, environ: Mapping[str, str], admin: Path = ADMIN_PROFILE
) -> FoundSite:
    """The site of this machine: all profiles found, merged per key, admin limits over all.

    Args:
        option: `--site`: a file, or `local` for the built-in profile.
        environ: the process environment ($RTDETR_SLURM_SITE, $XDG_CONFIG_HOME, $HOME, $PATH).

    Raises:
        NoProfile: there is none although this machine has Slurm.
        SiteError: a named file is missing, or a profile is wrong.
    """
    named = option or environ.get(Env.SITE)
    if named == LOCAL:
        return FoundSite(local_site(), notes=("site 'local': runs on this machine",))
    files = _profile_files(option, environ, admin)
    if files:
        site = load_site(files, admin if admin in files else None, environ)
        if site.scheduler == "local":
            return FoundSite(site, tuple(files))  # its jobs have this very environment
        notes = (*notes_on_variables(environ), *notes_on_secrets(site, environ))
        return FoundSite(site, tuple(files), notes)
    if shutil.which("sbatch", path=environ.get("PATH", os.defpath)) is None:
        note = "no sbatch on PATH and no site profile: runs on this machine (site 'local')"
        return FoundSite(local_site(), notes=(note,))
    own = user_profile(environ)
    raise NoProfile(
        "this machine has Slurm (sbatch is on PATH) but no site profile says how to use it; "
        "`rtdetr-slurm site init` writes one to begin with. Or "
        f"write one{f' at {own}' if own else ''} or name one with --site FILE or ${Env.SITE}: "
        f"{specs_dir() / 'site-gpu-cluster.yaml'} is an example to copy, docs/site.md explains "
        "each key. "
        "With --site local the job runs on this machine instead, outside Slurm."
    )


def own_profile(found: FoundSite, environ: Mapping[str, str], admin: Path = ADMIN_PROFILE) -> Path:
    """The profile that a user's own settings belong in: the nearest one that is not the
    administrator's, or the one that would be.

    Raises:
        SiteError: there is none, and no home folder for one.
    """
    own = [path for path in found.sources if path != admin]
    path = own[0] if own else user_profile(environ)
    if path is None:
        raise SiteError("there is no home folder for a profile of your own; set HOME")
    return path


def administrators_site(environ: Mapping[str, str]) -> Site | None:
    """What the administrator's profile alone says, whose limits hold for everybody; None: there is
    none.

    Raises:
        SiteError: it is wrong.
    """
    if not _is_there(ADMIN_PROFILE):
        return None
    return load_site([ADMIN_PROFILE], ADMIN_PROFILE, environ)


def local_site() -> Site:
    """The built-in profile: this machine, without a container, on whatever torch finds."""
    return Site(name=LOCAL, scheduler="local", gpu=Gpu(request="none"), signal_lead_s=60)


def user_profile(environ: Mapping[str, str]) -> Path | None:
    """Where a user's own profile is looked for; None for a user without a home."""
    config = user_folder("CONFIG", ".config", environ)
    return config and config / "rtdetr-slurm" / "site.yaml"


def _profile_files(option: str | None, environ: Mapping[str, str], admin: Path) -> list[Path]:
    files = []
    for what, name in (("--site", option), (f"${Env.SITE}", environ.get(Env.SITE))):
        if name and name != LOCAL:
            path = expanded(name)
            if not _is_there(path):
                found = "is no file" if path.exists() else "does not exist"
                raise SiteError(f"{what}: {path} {found}; allowed: a site profile, or 'local'")
            files.append(path)
    own = user_profile(environ)
    files += [path for path in (own, admin) if path is not None and _is_there(path)]
    return files


def _is_there(path: Path) -> bool:
    """Whether there is a file; a folder that may not be searched could hide a profile."""
    try:
        return stat.S_ISREG(path.stat().st_mode)
    except (FileNotFoundError, NotADirectoryError):
        return False
    except OSError as error:
        raise SiteError(
            f"cannot look for the site profile {path}: {error.strerror}; set HOME (or "
            "XDG_CONFIG_HOME) to a folder of your own"
        ) from error
