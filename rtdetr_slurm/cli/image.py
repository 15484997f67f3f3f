"""`rtdetr-slurm image`: make a container image once, for everybody."""

from __future__ import annotations

import argparse
import json
import os
import shlex
import signal
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from rtdetr_slurm.cli import terminal
from rtdetr_slurm.contract import ExitCode
from rtdetr_slurm.errors import RequestError, SiteError
from rtdetr_slurm.places import user_folder

if TYPE_CHECKING:
    from rtdetr_slurm.site.profile import RoleName, Site


class _Made(NamedTuple):
    """How the image of a role is made.

    Attributes:
        space_gb: that temporary files take.
        key: of the site profile.
    """

    definition: str
    space_gb: float
    key: str


_IMAGES: Mapping[RoleName, _Made] = {
    "train": _Made("Apptainerfile", 12.0, "image"),
    "tensorrt": _Made("containers/tensorrt.def", 30.0, "roles.tensorrt.image"),
}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "how",
        choices=("build", "pull"),
        metavar="build|pull",
        help="from a definition; from an address",
    )
    parser.add_argument(
        "source",
        nargs="?",
        metavar="DEF|URI",
        help="build: a definition file; pull: docker://…, oras://…, https://…",
    )
    parser.add_argument(
        "--role",
        choices=tuple(_IMAGES),
        default="train",
        help="whose image it is: without DEF and -o, build "
        + ", ".join(f"{made.definition} ({role})" for role, made in _IMAGES.items())
        + " as the image that the site profile names for the role (default: train)",
    )
    parser.add_argument(
        "-o",
        "--output",
        type=Path,
        metavar="FILE",
        help="the image; left out, the one that the site profile names for the role",
    )
    parser.add_argument("--site", metavar="FILE", help="site profile")
    parser.add_argument("--force", action="store_true", help="replace an image that is there")
    parser.add_argument("--sha256", metavar="DIGEST", help="refuse an image with another digest")
    parser.add_argument(
        "--build-arg", action="append", default=[], metavar="KEY=VALUE", help="for the definition"
    )
    parser.add_argument(
        "--apptainer-flag",
        action="append",
        default=[],
        metavar="FLAG",
        help="a further argument of apptainer, as in --apptainer-flag=--fakeroot",
    )
    parser.add_argument(
        "--space",
        type=float,
        metavar="GB",
        help="free space wanted for temporary files (default "
        + ", ".join(f"{made.space_gb:g} for {role}" for role, made in _IMAGES.items())
        + ")",
    )
    parser.add_argument("--json", action="store_true", help="print one JSON document")


def run(args: argparse.Namespace) -> int:
    from rtdetr_slurm.images.make import Order, make_image
    from rtdetr_slurm.site.discover import NoProfile, find_site
    from rtdetr_slurm.site.profile import Site

    try:
        site = find_site(args.site, os.environ).site
    except NoProfile:
        site = Site()  # images may come before profiles
    if args.how == "pull" and args.source is None:
        raise RequestError("image pull: say from where, such as docker://registry/name:tag")
    if args.how == "pull" and args.build_arg:
        raise RequestError("--build-arg is for image build")
    usual = _IMAGES[args.role]
    order = Order(
        how=args.how,
        source=args.source or usual.definition,
        target=args.output or _named(site, args.role),
        apptainer=site.apptainer,
        flags=[*(w for one in args.build_arg for w in ("--build-arg", one)), *args.apptainer_flag],
        run_flags=site.apptainer_flags,
        sha256=_demanded(args.sha256),
        replace=args.force,
        space_gb=usual.space_gb if args.space is None else args.space,
    )
    # A job's end must leave nothing half made behind, as Ctrl-C does.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))
    cache = user_folder("CACHE", ".cache", os.environ)
    remembered = cache and cache / "rtdetr-slurm" / "images.json"
    made = make_image(order, remembered, terminal.note)
    if args.json:
        terminal.document({"path": made.path, "sha256": made.sha256, "version": made.version})
        return ExitCode.OK
    terminal.out(made.path)
    terminal.out(f"sha256   {made.sha256}")
    terminal.out(f"profile  {usual.key}: {{path: {_yaml(made.path)}, sha256: {made.sha256}}}")
    return ExitCode.OK


def _named(site: Site, role: RoleName) -> Path:
    """Where the site profile has the image of a role; that of all roles is training's.

    Raises:
        SiteError: it has none.
    """
    key = _IMAGES[role].key
    image = getattr(site.roles, role).image or (site.image if key == "image" else None)
    if image is None:
        raise SiteError(f"the site profile names no {key}; say where to put it with -o FILE")
    return Path(image.path)


def _demanded(digest: str | None) -> str | None:
    """The digest that is asked for, checked now: an image takes minutes."""
    from rtdetr_slurm.site.kinds import sha256_digits

    try:
        return None if digest is None else sha256_digits(digest)
    except ValueError as error:
        raise RequestError(f"--sha256: found {digest!r}; allowed: {error}") from None


def _yaml(path: str) -> str:
    return path if shlex.quote(path) == path else json.dumps(path)
