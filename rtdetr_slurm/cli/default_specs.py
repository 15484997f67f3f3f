"""`rtdetr-slurm default-specs`: print a ready spec for an action."""

from __future__ import annotations

import argparse
from pathlib import Path

from rtdetr_slurm.actions import ACTIONS
from rtdetr_slurm.cli import terminal
from rtdetr_slurm.contract import ExitCode
from rtdetr_slurm.errors import RequestError
from rtdetr_slurm.files import write_atomic
from rtdetr_slurm.resources import schemas_dir


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("action", choices=ACTIONS, metavar="ACTION", help=", ".join(ACTIONS))
    parser.add_argument(
        "-o", "--output", type=Path, metavar="FILE", help="write it to a new file instead"
    )


def run(args: argparse.Namespace) -> int:
    from rtdetr_slurm.spec.template import template_yaml

    text = template_yaml(args.action, str(schemas_dir() / f"{args.action}.schema.json"))
    if args.output is None:
        terminal.out_lines(text)
        return ExitCode.OK
    try:
        args.output.touch(exist_ok=False)
    except FileExistsError:
        raise RequestError(f"{args.output} exists already and is left as it is") from None
    except OSError as error:
        raise RequestError(f"cannot write {args.output}: {error.strerror}") from None
    try:
        write_atomic(args.output, text)
    except OSError as error:
        args.output.unlink()
        raise RequestError(f"cannot write {args.output}: {error.strerror}") from None
    terminal.out(args.output)
    return ExitCode.OK
