"""What a submission has to bring: looked at on the login node, as far as that reaches."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any
from urllib.parse import urlsplit

from rtdetr_slurm.errors import RequestError
from rtdetr_slurm.installed import python_path
from rtdetr_slurm.model_check import InvalidInput, Problem, locate
from rtdetr_slurm.plan.model import Plan
from rtdetr_slurm.plan.sources import staged_fields
from rtdetr_slurm.plan.staging import STAGE, StagedField, Staging, Store, Upload
from rtdetr_slurm.resolved_spec import is_remote, shown_uri
from rtdetr_slurm.site.discover import FoundSite
from rtdetr_slurm.site.profile import Site
from rtdetr_slurm.spec import LoadedSpec
from rtdetr_slurm.staging.bring import bring
from rtdetr_slurm.staging.fetch import look
from rtdetr_slurm.staging.progress import Tell
from rtdetr_slurm.storage.base import Unreachable
from rtdetr_slurm.storage.objects import listed
from rtdetr_slurm.yaml_source import KeyPath

_SECRETS = ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN")
_MAY_NOT_LIST = "AccessDenied"
_ENDPOINT = ("AWS_ENDPOINT_URL_S3", "AWS_ENDPOINT_URL")
_REGION = ("AWS_REGION", "AWS_DEFAULT_REGION")
_PROFILE = ("AWS_PROFILE",)


@dataclass(frozen=True)
class Brought:
    """What is to be brought, and what is at hand already.

    Attributes:
        staging: what a stage is to bring; None where nothing is left for one.
        fields: all that there is to bring, whoever brings it.
        paths: of fields whose files are on the shared file system by now; of all, where no stage
            is to bring any.
        addresses: of what is at these paths.
    """

    staging: Staging | None = None
    fields: tuple[StagedField, ...] = ()
    paths: Mapping[str, str] = field(default_factory=dict)
    notes: tuple[str, ...] = ()
    addresses: Mapping[str, str] = field(default_factory=dict)

    def named(self, text: str) -> str:
        """A message about files in the cache that says what they are."""
        for path in sorted(self.addresses, key=len, reverse=True):
            text = text.replace(path, self.addresses[path])
        return text


def find_sources(
    loaded: LoadedSpec,
    spec: Mapping[str, Any],
    actions: Sequence[str],
    found: FoundSite,
    tell: Tell,
    *,
    bring_all: bool,
) -> Brought:
    """Look at every object that a spec names, and fetch what describes data: annotations and class
    maps.

    Args:
        spec: frozen, of `loaded`.
        actions: all that there will be stages for.
        bring_all: fetch and unpack everything, so that no stage needs to.

    Raises:
        InvalidInput: objects are missing or refused, with all of them by their places in the spec.
        RequestError: one that is brought cannot be used.
        SiteError: a place cannot be reached from where it must be.
    """
    named = loaded.job.unpack == "named"
    fields = staged_fields(spec, actions, found.site.engine_of, only_named=named)
    if not fields:
        return Brought()
    staging = Staging(
        cache=str(found.cache_root),
        store=store_of(found, os.environ),
        fields=fields,
        python_path=python_path("boto3"),
        secrets=_secrets(),
    )
    away = _look(loaded, staging, must_reach=bring_all)
    wanted = fields if bring_all else [one for one in fields if _describes_data(one)]
    reached = tuple(one for one in wanted if _place(one.object.uri) not in away)
    brought = bring(replace(staging, fields=reached), spec, tell=tell)
    notes = tuple(
        f"{place} cannot be reached from this machine ({why}); {STAGE} looks at what is there"
        for place, why in away.items()
    )
    paths = {one.field: one.path for one in brought}
    addresses = {one.path: shown_uri(one.uri) for one in brought}
    return Brought(None if bring_all else staging, fields, paths, notes, addresses)


def find_upload(loaded: LoadedSpec, found: FoundSite) -> Upload | None:
    """Where a copy of the run goes; None where it goes nowhere.

    Raises:
        InvalidInput: the place is refused.
    """
    to = loaded.job.upload
    if to is None:
        return None
    store = store_of(found, os.environ)
    if is_remote(to):
        try:
            next(listed(to, store), None)
        except Unreachable:
            pass  # from here; its stage says so if it is no better there
        except RequestError as error:
            if _MAY_NOT_LIST not in str(error):  # whoever may write need not be allowed that
                problem = Problem(("job", "upload"), str(error))
                raise InvalidInput(locate(loaded.source, [problem])) from error
    return Upload(to, store, python_path("boto3"), _secrets())


def check_local_copy(loaded: LoadedSpec, plan: Plan, site: Site) -> tuple[str, ...]:
    """Notes on the copies that nodes are to make.

    Raises:
        InvalidInput: they cannot.
    """
    if not loaded.job.local_copy:
        return ()
    copying = [stage for stage in plan.stages if stage.local_copy]
    on_host = [stage.name for stage in copying if stage.container is None]
    problem = None
    if on_host:
        problem = f"{on_host[0]} runs without a container, so no copy can take an original's place"
    elif copying and site.scratch is None:
        problem = f"site '{site.name}' names no folder for copies (scratch, in its profile)"
    if problem is not None:
        told = Problem(("job", "local_copy"), f"found true; {problem}")
        raise InvalidInput(locate(loaded.source, [told]))
    if not copying:
        return ("job.local_copy: no images are fetched or unpacked, so none are copied",)
    return ()


def _secrets() -> tuple[str, ...]:
    return tuple(name for name in _SECRETS if os.environ.get(name))


def store_of(found: FoundSite, environ: Mapping[str, str]) -> Store:
    """How object stores are reached: as the profile says, else as boto3's own variables do, which
    a job may not have."""
    s3 = found.site.s3

    def first(names: Sequence[str]) -> str | None:
        return next((value for name in names if (value := environ.get(name))), None)

    return Store(
        endpoint_url=s3.endpoint_url or first(_ENDPOINT),
        region=s3.region or first(_REGION),
        profile=s3.profile or first(_PROFILE),
        anonymous=s3.anonymous,
    )


def _look(loaded: LoadedSpec, staging: Staging, *, must_reach: bool) -> dict[str, str]:
    """See that every object is there and may be read.

    Returns:
        Places that cannot be reached from here, and why.

    Raises:
        InvalidInput: with all that are missing or refused.
        Unreachable: a place cannot be reached that must be.
    """
    problems: list[Problem] = []
    away: dict[str, str] = {}
    objects = {one.object.uri: one for one in reversed(staging.fields)}
    for one in reversed(objects.values()):
        place = _place(one.object.uri)
        if place in away:
            continue
        try:
            look(one.object, staging.store)
        except Unreachable as error:
            if must_reach:
                raise
            away[place] = str(error)
        except RequestError as error:
            problems.append(Problem(_path(one.field), str(error)))
    if problems:
        raise InvalidInput(locate(loaded.source, problems))
    return away


def _describes_data(one: StagedField) -> bool:
    return one.object.kind == "file" and one.field.startswith("dataset.")


def _place(uri: str) -> str:
    """What is reached or not: a host, all of S3, or this machine."""
    if not is_remote(uri):
        return "this machine"
    parts = urlsplit(uri)
    return "s3" if parts.scheme == "s3" else str(parts.hostname)


def _path(name: str) -> KeyPath:
    return tuple(int(part) if part.isdecimal() else part for part in name.split("."))
