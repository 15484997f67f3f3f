"""Finding the site profiles of a machine and merging them into one."""

from __future__ import annotations

import os
import shutil
import string
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rtdetr_slurm.contract import Env
from rtdetr_slurm.errors import RequestError, SiteError
from rtdetr_slurm.model_check import check_model
from rtdetr_slurm.site.profile import Gpu, Limits, Site, merge, tighten
from rtdetr_slurm.yaml_source import YamlSource, load_yaml

ADMIN_PROFILE = Path("/etc/rtdetr-slurm/site.yaml")
LOCAL = "local"
"""The word for the built-in profile, for `--site` and in the environment."""


@dataclass(frozen=True)
class FoundSite:
    """A site, the files it came from (highest precedence first), and what to tell the user."""

    site: Site
    sources: tuple[Path, ...] = ()
    notes: tuple[str, ...] = ()


def find_site(
    option: str | None, environ: Mapping[str, str], admin: Path = ADMIN_PROFILE
) -> FoundSite:
    """The site of this machine: all profiles found, merged per key, admin limits over all.

    Args:
        option: `--site`: a file, or `local` for the built-in profile.
        environ: the process environment ($RTDETR_SLURM_SITE, $XDG_CONFIG_HOME, $HOME, $PATH).

    Raises:
        SiteError: a named file is missing, a profile is wrong, or there is none although
            this machine has Slurm.
    """
    named = option or environ.get(Env.SITE)
    if named == LOCAL:
        return FoundSite(local_site(), notes=("site 'local': runs on this machine",))
    files = _profile_files(option, environ, admin)
    if files:
        return _load(files, admin, environ)
    if shutil.which("sbatch", path=environ.get("PATH", os.defpath)) is None:
        note = "no sbatch on PATH and no site profile: runs on this machine (site 'local')"
        return FoundSite(local_site(), notes=(note,))
    raise SiteError(
        "this machine has Slurm (sbatch is on PATH) but no site profile says how to use it; "
        f"write one at {_user_profile(environ)} or name one with --site FILE or ${Env.SITE}: "
        "specs/site-gpu-cluster.yaml is an example to copy, docs/site.md explains each key. "
        "With --site local the job runs on this machine instead, outside Slurm."
    )


def local_site() -> Site:
    """The built-in profile: this machine, without a container, on whatever torch finds."""
    return Site(name=LOCAL, scheduler="local", gpu=Gpu(request="none"), signal_lead_s=60)


def _user_profile(environ: Mapping[str, str]) -> Path:
    config = environ.get("XDG_CONFIG_HOME") or Path(environ.get("HOME", "~")) / ".config"
    return Path(config).expanduser() / "rtdetr-slurm" / "site.yaml"


def _profile_files(option: str | None, environ: Mapping[str, str], admin: Path) -> list[Path]:
    files = []
    for what, name in (("--site", option), (f"${Env.SITE}", environ.get(Env.SITE))):
        if name and name != LOCAL:
            path = Path(name).expanduser()
            if not path.is_file():
                raise SiteError(
                    f"{what}: there is no file {path}; allowed: a site profile, or 'local'"
                )
            files.append(path)
    files += [path for path in (_user_profile(environ), admin) if path.is_file()]
    return files


def _load(files: list[Path], admin: Path, environ: Mapping[str, str]) -> FoundSite:
    try:
        sources = [load_yaml(path) for path in files]
        profiles = [check_model(Site, source) for source in sources]
    except RequestError as error:
        raise SiteError(str(error)) from error
    layers = [_expanded(source, environ) for source in sources]
    merged = Site.model_validate(merge(layers))
    if admin in files:
        caps = profiles[files.index(admin)].limits.model_dump()
        limits = Limits(**tighten(merged.limits.model_dump(), caps))
        merged = merged.model_copy(update={"limits": limits})
    if merged.scheduler == "slurm" and merged.accelerator is None:
        merged = merged.model_copy(update={"accelerator": "cuda"})
    return FoundSite(merged, tuple(files))


def _expanded(source: YamlSource, environ: Mapping[str, str]) -> dict[str, Any]:
    """The profile's data with `~` and `$VAR` filled in where a path of the login node stands."""

    def expand(text: str, key: str, *, absolute: bool = True) -> str:
        path = Path(_expand_variables(text, environ, f"{source.path}: {key}")).expanduser()
        if absolute and not path.is_absolute():
            raise SiteError(f"{source.path}: {key}: '{text}' must be an absolute path")
        return str(path)

    data = dict(source.data)
    if "run_root" in data:
        data["run_root"] = expand(data["run_root"], "run_root", absolute=False)
    images = {}
    for role, entry in (data.get("images") or {}).items():
        image = {"path": entry} if isinstance(entry, str) else entry
        images[role] = image and {**image, "path": expand(image["path"], f"images.{role}")}
    if images:
        data["images"] = images
    if "binds" in data:
        data["binds"] = [
            expand(b, "binds")
            if isinstance(b, str)
            else {**b, "source": expand(b["source"], "binds")}
            for b in data["binds"]
        ]
    return data


def _expand_variables(text: str, environ: Mapping[str, str], where: str) -> str:
    try:
        return string.Template(text).substitute(environ)
    except KeyError as error:
        raise SiteError(f"{where}: '{text}' names ${error.args[0]}, which is not set") from None
    except ValueError:
        raise SiteError(f"{where}: '{text}' has a '$' that names no variable") from None
