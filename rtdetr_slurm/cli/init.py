"""`rtdetr-slurm init`: a spec for a data set, with the reason for each choice."""

from __future__ import annotations

import argparse
import functools
import os
import tempfile
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from rtdetr_slurm.cli import terminal
from rtdetr_slurm.cli.told import Told
from rtdetr_slurm.contract import ExitCode
from rtdetr_slurm.errors import RequestError
from rtdetr_slurm.files import write_new
from rtdetr_slurm.resolved_spec import is_remote

if TYPE_CHECKING:
    from rtdetr_slurm.data.coco import CocoAnnotations
    from rtdetr_slurm.data.layout import SplitFiles
    from rtdetr_slurm.site.discover import FoundSite
    from rtdetr_slurm.spec.draft.facts import Hardware


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "data", metavar="DATA", help="folder of the data set, or its address (s3://, https://)"
    )
    parser.add_argument(
        "overrides", nargs="*", metavar="key=value", help="fields that the choices are to follow"
    )
    parser.add_argument("-o", "--output", metavar="FILE", help="a new file (default: printed)")
    parser.add_argument("--gpu-memory", type=float, metavar="GB", help="of each GPU, in GiB")
    parser.add_argument("--site", metavar="FILE", help="site profile; 'local' is this machine")


def run(args: argparse.Namespace) -> int:
    from rtdetr_slurm.data.coco import read_annotations
    from rtdetr_slurm.data.facts import gather_facts
    from rtdetr_slurm.spec.draft.draft import choose_fields, draft_text
    from rtdetr_slurm.spec.draft.given import given_fields

    if args.output and os.path.lexists(args.output):
        raise RequestError(f"{args.output} exists already and is left as it is")
    given = given_fields(args.overrides)
    site = _site(args)
    hardware = _hardware(args.gpu_memory, site)
    read = functools.cache(read_annotations)
    facts = gather_facts(args.data, _splits(args.data, site, read), read)
    choices = choose_fields(facts, given, hardware)
    _check(choices.chosen(), args.overrides, site)
    text = draft_text(choices, facts)
    if args.output:
        write_new(Path(args.output), text)
        terminal.out(args.output)
        terminal.note(f"next: rtdetr-slurm submit {args.output} --dry-run")
    else:
        terminal.out_lines(text)
    return ExitCode.OK


def _site(args: argparse.Namespace) -> FoundSite | None:
    from rtdetr_slurm.site.discover import NoProfile, find_site

    try:
        return find_site(args.site, os.environ)
    except NoProfile:
        return None


def _splits(
    data: str, site: FoundSite | None, read: Callable[[Path], CocoAnnotations]
) -> Mapping[str, SplitFiles]:
    """What the data set has, wherever it is."""
    from rtdetr_slurm.data.layout import find_splits

    if is_remote(data):
        from rtdetr_slurm.site.discover import FoundSite, local_site
        from rtdetr_slurm.submission.remote_data import remote_splits

        return remote_splits(data, site or FoundSite(local_site()), Told())
    folder = Path(data).absolute()
    if not folder.is_dir():
        raise RequestError(f"{data} is not a folder; allowed: the folder of a data set")
    splits = find_splits(folder, read)
    if not splits:
        raise RequestError(
            f"{data}: no annotations in COCO's form are in it; `rtdetr-slurm data convert` makes "
            "them of those of other tools"
        )
    return splits


def _hardware(memory_gb: float | None, site: FoundSite | None) -> Hardware:
    """The GPUs and the pretrained weights, as far as they are known."""
    from rtdetr_slurm.plan.hardware import gpu_memory_gb
    from rtdetr_slurm.spec.draft.facts import Hardware
    from rtdetr_slurm.spec.memory import LEAST_GB

    if memory_gb is not None and not memory_gb >= 1:
        raise RequestError(f"--gpu-memory {memory_gb:g}: allowed is 1 GiB and more")
    said_by = "--gpu-memory"
    if memory_gb is None and site is not None:
        memory_gb, said_by = gpu_memory_gb(site.site.for_role("train").gpu), "site profile"
    if memory_gb is None:
        memory_gb, said_by = LEAST_GB, ""
    if site is None:
        return Hardware(memory_gb, said_by)
    return Hardware(memory_gb, said_by, site.site.models, site.site.engine_of("train"))


def _check(text: str, overrides: Sequence[str], site: FoundSite | None) -> None:
    """See that what is chosen is a spec with what is given.

    Raises:
        RequestError: it does not go together.
    """
    from rtdetr_slurm.actions import own_engine
    from rtdetr_slurm.spec import load_spec

    engine_of = own_engine if site is None else site.site.engine_of
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "train.yaml")
        path.write_text(text)
        load_spec(path, overrides, "train", engine_of=engine_of)
