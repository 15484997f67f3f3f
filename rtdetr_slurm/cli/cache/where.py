"""--site and KEY, as the commands of the cache take them."""

from __future__ import annotations

import argparse
import os
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rtdetr_slurm.site.discover import FoundSite

KEY_SHOWN = 12
"""Digits of a key; an entry may be named by the beginning of its own."""


def add_site_argument(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--site", metavar="FILE", help="site profile; tells where the cache is")


def add_key_arguments(parser: argparse.ArgumentParser, help: str) -> None:
    parser.add_argument("keys", nargs="*", metavar="KEY", help=help)


def found_site(args: argparse.Namespace) -> FoundSite:
    """Whose cache it is."""
    from rtdetr_slurm.site.discover import find_site

    return find_site(args.site, os.environ)
