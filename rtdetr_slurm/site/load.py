"""Profile files → one Site: checked, merged per key, the administrator's limits over all."""

from __future__ import annotations

import os
import re
import string
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from rtdetr_slurm.errors import RequestError, SiteError
from rtdetr_slurm.model_check import InvalidInput, Problem, check_model, locate
from rtdetr_slurm.places import refusal, with_home
from rtdetr_slurm.site.profile import ROLES, Limits, Site
from rtdetr_slurm.slurm.environment import is_secret, literal_secrets
from rtdetr_slurm.yaml_source import KeyPath, YamlSource, dotted, load_yaml, show

_FORMER = {"partitions": "partition", "images": "image"}
_WHOLE = frozenset({"image"})
"""Sections that are one value: a digest belongs to its path, not to that of another file."""


def load_site(files: Sequence[Path], admin: Path | None, environ: Mapping[str, str]) -> Site:
    """The site that these profiles describe together.

    Args:
        files: highest precedence first.
        admin: the one of `files` whose limits cannot be widened; None if it is not among them.
        environ: what `$VAR` in paths is filled in from.

    Raises:
        SiteError: a profile is wrong; names file, line and column.
    """
    try:
        sources = [load_yaml(path) for path in files]
        profiles = [_check(source) for source in sources]
        _refuse_contradictions(sources)
    except RequestError as error:
        raise SiteError(str(error)) from error
    layers = [_layer(*each, environ) for each in zip(sources, profiles, strict=True)]
    site = Site.model_validate(merge(layers))
    caps = sources[files.index(admin)] if admin is not None else None
    site = site.model_copy(update={"limits": _limits(site.limits, sources, caps)})
    if site.scheduler == "slurm" and site.accelerator is None:
        site = site.model_copy(update={"accelerator": "cuda"})
    return site


def merge(layers: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """One profile from several, highest precedence first, merged per key (nested maps too)."""
    merged: dict[str, Any] = {}
    for layer in layers:
        for key, value in layer.items():
            if key not in merged:
                merged[key] = value
            elif (
                isinstance(merged[key], Mapping)
                and isinstance(value, Mapping)
                and key not in _WHOLE
            ):
                merged[key] = merge([merged[key], value])
    return merged


def _limits(merged: Limits, sources: Sequence[YamlSource], admin: YamlSource | None) -> Limits:
    """The limits that hold, each with the place that it comes from."""
    own = merged.model_dump()
    caps = {} if admin is None else Limits.model_validate(admin.data.get("limits")).model_dump()
    held = tighten(own, caps)
    places = {}
    for key, value in held.items():
        givers = [source for source in sources if (source.data.get("limits") or {}).get(key)]
        if value is not None and givers:
            giver = givers[0] if value == own[key] or admin is None else admin
            places[key] = f"{giver.path}:{_line(giver, ('limits', key))}"
    return Limits(**held).located(places)


def _line(source: YamlSource, path: KeyPath) -> int:
    origin = source.origin(path)
    assert not isinstance(origin, str), "a profile has no overrides"
    return origin.line


def tighten(limits: Mapping[str, Any], admin: Mapping[str, Any]) -> dict[str, Any]:
    """`limits` cut down to what the administrator's allow; both as validated plain values."""
    result = dict(limits)
    for key, cap in admin.items():
        own = result.get(key)
        if cap is None:
            continue
        if own is None:
            result[key] = cap
        elif isinstance(cap, list):
            result[key] = [name for name in own if name in cap]
        else:
            result[key] = min(own, cap)
    return result


# --- checks of the files -------------------------------------------------------------------
def _check(source: YamlSource) -> Site:
    former = [
        Problem(
            (old,),
            f"this key is gone; write roles.<role>.{new} (roles: {', '.join(ROLES)}), "
            f"or {new} at the top level for all roles",
            key=True,
        )
        for old, new in _FORMER.items()
        if old in source.data
    ]
    if former:
        raise InvalidInput(locate(source, former))
    site = check_model(Site, source)
    if exposed := [*_exposed_secrets(site)]:
        raise InvalidInput(locate(source, exposed))
    return site


def _exposed_secrets(site: Site) -> Iterator[Problem]:
    """Secrets that would be in the batch script and in run.json, or on a command line; none is
    shown."""
    instead = "write secrets: [{0}] instead, and set it where you submit"
    for number, line in enumerate(site.module_lines):
        for name in literal_secrets(line):
            yield Problem(
                ("module_lines", number),
                f"the value of {name} would be in the batch script and in run.json; "
                + instead.format(name),
            )
    for number, flag in enumerate(site.apptainer_flags):
        for name in re.findall(r"(\w+)=", flag):
            if is_secret(name):
                yield Problem(
                    ("apptainer_flags", number),
                    f"{name} would be seen by everybody on the node; " + instead.format(name),
                )
    for number, word in enumerate(site.notify_command):
        for name in re.findall(r"([\w-]+)=", word):
            if is_secret(name.replace("-", "_")):
                yield Problem(
                    ("notify_command", number),
                    f"the value of {name} would be in run.json, and seen by everybody on the node; "
                    "have the command read it from a file of its own",
                )


class _Given(NamedTuple):
    """Where a key is first given, going from the nearest level to the farthest."""

    rank: int
    source: YamlSource
    path: KeyPath
    value: Any


_Level = tuple[YamlSource, KeyPath]


def _first(levels: Sequence[_Level], key: str) -> _Given | None:
    for rank, (source, path) in enumerate(levels):
        section: Any = source.data
        for part in path:
            section = section.get(part) or {}
        if key in section:
            return _Given(rank, source, (*path, key), section[key])
    return None


def _refuse_contradictions(sources: Sequence[YamlSource]) -> None:
    """An image that `container: none` leaves unused, a python that a container does.

    What a nearer level says about `container` takes a farther one's image or python out of use
    without being a contradiction.
    """
    top: list[_Level] = [(source, ()) for source in sources]
    scheduler = _first(top, "scheduler")
    if scheduler is not None and scheduler.value == "local":
        return
    own = {role: [(source, ("roles", role)) for source in sources] for role in ROLES}
    everywhere = [top, *([*levels, *top] for levels in own.values())]
    containers = [_first(levels, "container") for levels in everywhere]
    some_without = any(found is not None and found.value == "none" for found in containers)
    for levels, container in zip(everywhere, containers, strict=True):
        without = container is not None and container.value == "none"
        unused = _first(levels, "image" if without else "python")
        if unused is None or unused.value is None:
            continue
        if container is not None and container.rank < unused.rank:
            continue
        if not without and len(unused.path) == 1 and some_without:
            continue  # of use to another role
        raise InvalidInput(locate(unused.source, [_unused(unused, container)]))


def _unused(unused: _Given, container: _Given | None) -> Problem:
    if container is None:
        said = "container is 'apptainer' by default"
    else:
        said = f"{dotted(container.path)} is '{container.value}' in {container.source.path}"
    other = "apptainer" if unused.path[-1] == "image" else "none"
    return Problem(
        unused.path,
        f"found {show(unused.value)}; {said}, so it is not used: leave it out, or write "
        f"container: {other} beside it",
    )


# --- what a file's data become before they are merged ---------------------------------------
def _layer(source: YamlSource, profile: Site, environ: Mapping[str, str]) -> dict[str, Any]:
    """The data as given, with `~` and `$VAR` filled in where a path of the login node stands."""

    def expand(text: str, key: str, *, absolute: bool = True, bound: bool = False) -> str:
        path = with_home(_expand_variables(text, environ, f"{source.path}: {key}"))
        if path is None:
            raise SiteError(f"{source.path}: {key}: '{text}': there is no such user")
        if absolute and not path.startswith("/"):
            raise SiteError(f"{source.path}: {key}: '{text}' must be an absolute path")
        if bound and (reason := refusal(str(Path(path).absolute()))):
            raise SiteError(f"{source.path}: {key}: found '{text}'; {reason}")
        return os.path.normpath(path)

    def role(section: Mapping[str, Any], prefix: str) -> dict[str, Any]:
        result = dict(section)
        if image := result.get("image"):
            image = {"path": image} if isinstance(image, str) else image
            result["image"] = {**image, "path": expand(image["path"], f"{prefix}image")}
        if python := result.get("python"):
            result["python"] = expand(python, f"{prefix}python")
        return result

    data = role(source.data, "")
    if roles := data.get("roles"):
        data["roles"] = {
            name: section and role(section, f"roles.{name}.") for name, section in roles.items()
        }
    if "run_root" in data:
        data["run_root"] = expand(data["run_root"], "run_root", absolute=False, bound=True)
    if data.get("cache_root"):
        data["cache_root"] = expand(data["cache_root"], "cache_root", bound=True)
    if data.get("templates"):
        data["templates"] = expand(data["templates"], "templates")
    if "apptainer" in data:
        data["apptainer"] = expand(data["apptainer"], "apptainer", absolute=False)
    if (scratch := data.get("scratch")) and "$" not in scratch:
        data["scratch"] = expand(scratch, "scratch", bound=True)
    if data.get("models"):
        data["models"] = {
            name: path and expand(path, f"models.{name}") for name, path in data["models"].items()
        }
    if "binds" in data:
        data["binds"] = [
            {
                "source": expand(one.source, "binds", bound=one.target is None),
                "target": one.target and expand(one.target, "binds", bound=True),
                "read_only": one.read_only,
            }
            for one in profile.binds
        ]
    if data.get("env"):
        data["env"] = profile.env  # a list of names merges per name, as a mapping does
    return data


def _expand_variables(text: str, environ: Mapping[str, str], where: str) -> str:
    try:
        return string.Template(text).substitute(environ)
    except KeyError as error:
        raise SiteError(f"{where}: '{text}' names ${error.args[0]}, which is not set") from None
    except ValueError:
        raise SiteError(f"{where}: '{text}' has a '$' that names no variable") from None
