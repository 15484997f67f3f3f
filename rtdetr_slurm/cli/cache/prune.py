"""`rtdetr-slurm cache prune`: remove what nobody has wanted for long."""

from __future__ import annotations

import argparse
from datetime import datetime, timedelta, timezone

from rtdetr_slurm.cli import terminal
from rtdetr_slurm.cli.cache.where import (
    KEY_SHOWN,
    add_key_arguments,
    add_site_argument,
    found_site,
)
from rtdetr_slurm.contract import ExitCode


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add_key_arguments(parser, "remove these entries, however lately they were used")
    add_site_argument(parser)
    parser.add_argument(
        "--unused",
        type=float,
        default=30.0,
        metavar="DAYS",
        help="remove what no run has wanted for so long, and what was left unfinished (default: "
        "30); never what a run that has not ended depends on",
    )
    parser.add_argument("--dry-run", action="store_true", help="remove nothing, say what")


def run(args: argparse.Namespace) -> int:
    from rtdetr_slurm.staging.progress import size_text
    from rtdetr_slurm.staging.upkeep import chosen, is_unneeded, kept_in, remove, remove_rests
    from rtdetr_slurm.submission.cached import entries_in_use

    site = found_site(args)
    cache = site.cache_root
    kept = kept_in(cache)
    now, unused = datetime.now(timezone.utc), timedelta(days=args.unused)
    if args.keys:
        unneeded = chosen(kept, args.keys)
    else:
        unneeded = [one for one in kept if is_unneeded(one, now, unused)]
    in_use = entries_in_use(site.run_root, cache) if unneeded else {}
    freed, code = 0, ExitCode.OK
    for one in unneeded:
        holder = f"run {in_use[one.key]}" if one.key in in_use else one.at_work
        if holder is not None and (args.keys or one.key in in_use):
            terminal.note(f"{one.key[:KEY_SHOWN]} is kept: {holder} needs it")
            code = ExitCode.FAILED if args.keys else code
            continue
        if not args.dry_run:
            remove(cache, one.key)
        freed += one.entry.bytes if one.entry else 0
        terminal.out(f"{one.key[:KEY_SHOWN]}  {one.entry.uri if one.entry else '(unfinished)'}")
    if not args.dry_run:
        remove_rests(cache)
    terminal.note(f"{size_text(freed)} {'would be ' if args.dry_run else ''}freed in {cache}")
    return code
