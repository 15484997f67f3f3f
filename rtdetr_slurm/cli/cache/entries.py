"""`rtdetr-slurm cache list`: what is in the cache."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING

from rtdetr_slurm.cli import terminal
from rtdetr_slurm.cli.cache.where import KEY_SHOWN, add_site_argument, found_site
from rtdetr_slurm.contract import CACHE_VERSION, ExitCode

if TYPE_CHECKING:
    from rtdetr_slurm.staging.upkeep import Kept

_HEADINGS = ("KEY", "STATE", "SIZE", "FILES", "LAST USED", "OBJECT")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add_site_argument(parser)
    parser.add_argument("--json", action="store_true", help="print one JSON document")


def run(args: argparse.Namespace) -> int:
    from rtdetr_slurm.cli.table import table
    from rtdetr_slurm.staging.progress import size_text
    from rtdetr_slurm.staging.upkeep import kept_in

    cache = found_site(args).cache_root
    kept = kept_in(cache)
    if args.json:
        terminal.document(
            {
                "schema_version": CACHE_VERSION,
                "cache_root": str(cache),
                "entries": [_facts(one) for one in kept],
            }
        )
        return ExitCode.OK
    rows = [_row(one) for one in kept]
    styles = ["" if one.entry else "yellow" for one in kept]
    terminal.out_text(table(_HEADINGS, rows, styles, coloured="STATE"))
    total = sum(one.entry.bytes for one in kept if one.entry)
    terminal.note(f"{cache}: {len(kept)} entries, {size_text(total)}")
    return ExitCode.OK


def _state(one: Kept) -> str:
    if one.problem is not None:
        return "unreadable"
    return "complete" if one.entry else "under way" if one.at_work else "unfinished"


def _row(one: Kept) -> tuple[str, ...]:
    from rtdetr_slurm.staging.progress import size_text

    used = one.used.astimezone().strftime("%Y-%m-%d %H:%M") if one.used else ""
    row = (one.key[:KEY_SHOWN], _state(one))
    if one.entry is None:
        return (*row, "", "", used, one.problem or one.at_work or "")
    return (*row, size_text(one.entry.bytes), str(one.entry.files), used, one.entry.uri)


def _facts(one: Kept) -> dict[str, object]:
    entry = one.entry
    return {
        "key": one.key,
        "state": _state(one),
        "path": str(entry.path if entry else one.folder),
        "uri": entry.uri if entry else None,
        "kind": entry.kind if entry else None,
        "etag": entry.etag if entry else None,
        "files": entry.files if entry else None,
        "bytes": entry.bytes if entry else None,
        "last_used": one.used.isoformat() if one.used else None,
        "problem": one.problem,
    }
