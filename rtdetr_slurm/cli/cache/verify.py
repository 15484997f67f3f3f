"""`rtdetr-slurm cache verify`: whether what is in the cache is as it was brought."""

from __future__ import annotations

import argparse

from rtdetr_slurm.cli import terminal
from rtdetr_slurm.cli.cache.where import (
    KEY_SHOWN,
    add_key_arguments,
    add_site_argument,
    found_site,
)
from rtdetr_slurm.contract import ExitCode
from rtdetr_slurm.errors import RequestError

_MOST_SHOWN = 5


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add_key_arguments(parser, "look at these entries only")
    add_site_argument(parser)
    parser.add_argument(
        "--remove", action="store_true", help="remove what is damaged, to be fetched anew"
    )


def run(args: argparse.Namespace) -> int:
    from rtdetr_slurm.staging.upkeep import chosen, damage, kept_in, remove

    cache = found_site(args).cache_root
    code = ExitCode.OK
    for one in chosen(kept_in(cache), args.keys):
        if one.entry is None and one.problem is None:
            continue  # not complete, and nobody reads it
        try:
            found = [*damage(one)]
        except RequestError as error:
            found = [str(error)]
        said = one.entry.uri if one.entry else ""
        terminal.out(f"{'DAMAGED' if found else 'ok':<8}{one.key[:KEY_SHOWN]}  {said}")
        for line in found[:_MOST_SHOWN]:
            terminal.out(f"        {line}")
        if len(found) > _MOST_SHOWN:
            terminal.out(f"        and {len(found) - _MOST_SHOWN} more")
        if found:
            code = ExitCode.FAILED
            if args.remove:
                remove(cache, one.key)
    return code
