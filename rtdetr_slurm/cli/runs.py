"""RUN and --site, as several commands take them."""

from __future__ import annotations

import argparse
import os
from pathlib import Path

from rtdetr_slurm.runs.run import Run, find_run, open_run


def add_run_arguments(parser: argparse.ArgumentParser, *, optional: bool = False) -> None:
    parser.add_argument(
        "run",
        nargs="?" if optional else None,
        metavar="RUN",
        help="a run id, its beginning, or a path",
    )
    parser.add_argument("--site", metavar="FILE", help="site profile; tells where the runs are")


def chosen_folder(args: argparse.Namespace) -> Path:
    """The folder of the run that RUN and --site name."""
    return find_run(args.run, lambda: run_root(args.site))


def chosen_run(args: argparse.Namespace) -> Run:
    """The run that RUN and --site name."""
    return open_run(chosen_folder(args))


def run_root(site: str | None) -> Path:
    """Where this site's runs are."""
    from rtdetr_slurm.site.discover import find_site

    return find_site(site, os.environ).run_root
