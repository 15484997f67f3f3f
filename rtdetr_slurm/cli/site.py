"""`rtdetr-slurm site init`: a profile to begin with."""

from __future__ import annotations

import argparse
import os
from pathlib import Path

from rtdetr_slurm.cli import terminal
from rtdetr_slurm.contract import ExitCode
from rtdetr_slurm.errors import RequestError, SiteError
from rtdetr_slurm.files import write_new


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("verb", choices=("init",), metavar="init", help="write a profile")
    parser.add_argument(
        "-o",
        "--output",
        metavar="FILE",
        help="a new file (default: where your own profile belongs); - is standard output",
    )


def run(args: argparse.Namespace) -> int:
    from rtdetr_slurm.doctor.examine import WHERE_SLURM_ANSWERS, ask_slurm
    from rtdetr_slurm.runs.processes import user_name
    from rtdetr_slurm.site.discover import user_profile
    from rtdetr_slurm.site.draft import draft_profile
    from rtdetr_slurm.site.surroundings import look_around

    path = Path(args.output) if args.output else user_profile(os.environ)
    if path is None:
        raise SiteError("there is no home folder for a profile; name a file with --output")
    to_stdout = args.output == "-"
    if not to_stdout and os.path.lexists(path):
        raise _there_already(path)
    try:
        cluster = ask_slurm()
    except SiteError as error:
        raise SiteError(f"{error}\n{WHERE_SLURM_ANSWERS}") from error
    draft = draft_profile(cluster, look_around(user_name(), os.environ))
    if to_stdout:
        terminal.out_lines(draft.text)
    else:
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            write_new(path, draft.text)
        except FileExistsError:
            raise _there_already(path) from None
        terminal.out(path)
    for one in draft.unknown:
        terminal.note(f"could not be found out: {one}")
    terminal.note("next: fill that in, then `rtdetr-slurm doctor`")
    return ExitCode.OK


def _there_already(path: Path) -> RequestError:
    return RequestError(f"{path} exists already and is left as it is; name another with --output")
