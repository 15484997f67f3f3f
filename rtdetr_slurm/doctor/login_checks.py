"""What this machine, the login node, says about the site: profile, image, run root, S3."""

from __future__ import annotations

import os
import shutil
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

from rtdetr_slurm.doctor.finding import Finding, failure, not_checked, ok, warning
from rtdetr_slurm.errors import SiteError, UserError, explained
from rtdetr_slurm.launch.reach import reach, s3_endpoint, shown_address
from rtdetr_slurm.runs.images import cache_file, is_image, record_image
from rtdetr_slurm.site.discover import FoundSite
from rtdetr_slurm.site.profile import ROLES, TRAIN_ROLE, Site
from rtdetr_slurm.site.surroundings import MOUNTS, file_system, mounted

_LITTLE_GIB = 10.0


def check_login(
    found: FoundSite, environ: Mapping[str, str], on_note: Callable[[str], None]
) -> Iterator[Finding]:
    """All checks that need no Slurm.

    Args:
        on_note: is told what takes its time.
    """
    site = found.site
    names = ", ".join(map(str, found.sources))
    yield ok("site.profile", f"site '{site.name}', from {names or 'the built-in profile'}")
    for note in found.notes if found.sources else ():
        yield warning("site.environment", note, "unset it, or say it in the profile")
    yield ok("login.python", f"Python {sys.version.split()[0]} ({sys.executable})")
    yield check_run_root(found.run_root)
    yield from _images(site, environ, on_note)
    yield check_s3(site, environ)


def check_run_root(root: Path) -> Finding:
    """Runs can be made there: the folder is made if it is not there yet, as `submit` does it."""
    check, remedy = "site.run_root", "set run_root in the profile to a folder of yours that all "
    remedy += "nodes see, with space left"
    try:
        root.mkdir(parents=True, exist_ok=True)
        with tempfile.NamedTemporaryFile(dir=root, prefix=".doctor-") as file:
            file.write(b"room for a record\n")
            file.flush()
            os.fsync(file.fileno())
        free = shutil.disk_usage(root).free / 2**30
    except OSError as error:
        return failure(check, str(explained(error)), remedy)
    kind = file_system(root.resolve(), mounted(MOUNTS.read_text(errors="replace")))
    said = f"{root} takes files, {free:.0f} GiB free, {kind}"
    if free < _LITTLE_GIB:
        return warning(check, said, "make room: a checkpoint takes some hundred MB")
    return ok(check, said)


def _images(
    site: Site, environ: Mapping[str, str], on_note: Callable[[str], None]
) -> Iterator[Finding]:
    """Each image that a role uses, once."""
    seen: set[str] = set()
    for name in ROLES:
        try:
            image = site.for_role(name).image
        except SiteError as error:
            if name == TRAIN_ROLE:  # the others are asked when jobs of theirs are
                yield _no_image(error)
            continue
        if image is None or image.path in seen:
            continue
        seen.add(image.path)
        try:
            record = record_image(
                Path(image.path), image.sha256, site.apptainer, cache_file(environ), on_note
            )
            if record.size is not None and not is_image(Path(image.path)):
                raise SiteError(f"{image.path} is a file, and no container image")
        except (SiteError, OSError) as error:
            yield _no_image(explained(error))
            continue
        if record.size is None:
            yield ok("site.image", f"{image.path}, a folder, which no digest pins")
            continue
        pinned = "as the profile demands" if image.sha256 else "the profile demands none"
        version = f"version {record.version}, " if record.version else ""
        size = f"{record.size / 2**30:.1f} GiB"
        yield ok("site.image", f"{image.path}, {version}{size}, sha256 {record.sha256} ({pinned})")
    if not seen and site.merged_role("train").container == "none":
        yield not_checked("site.image", "jobs run without a container")


def _no_image(error: UserError) -> Finding:
    said, _, advice = str(error).partition("; ")
    return failure("site.image", said, advice or "set image in the profile to the one you mean")


def check_s3(site: Site, environ: Mapping[str, str]) -> Finding:
    """From here; nodes answer for themselves."""
    endpoint = s3_endpoint(site.env, environ)
    if endpoint is None:
        return not_checked("s3", "nothing under env in the profile names an S3 service")
    return judge_s3(endpoint, reach(endpoint), "login")


def judge_s3(endpoint: str, problem: str | None, where: str) -> Finding:
    shown = shown_address(endpoint)
    if problem is None:
        return ok("s3", f"{shown} answers", where)
    return failure(
        "s3",
        f"{shown} cannot be reached: {problem}",
        "correct AWS_ENDPOINT_URL, or let HTTPS_PROXY in, under env in the profile",
        where,
    )
