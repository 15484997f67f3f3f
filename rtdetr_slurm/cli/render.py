"""`rtdetr-slurm render`: the administrators' sbatch templates, filled from a spec."""

from __future__ import annotations

import argparse
from pathlib import Path

from rtdetr_slurm.actions import get_action
from rtdetr_slurm.cli import terminal
from rtdetr_slurm.cli.submit import add_request, prepared_request
from rtdetr_slurm.contract import ExitCode
from rtdetr_slurm.errors import RequestError
from rtdetr_slurm.files import PRIVATE_FILE, write_atomic


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add_request(parser)
    parser.add_argument(
        "-o", "--output", type=Path, metavar="FOLDER", help="write a file for each stage there"
    )
    parser.add_argument("--json", action="store_true", help="print one JSON document")


def run(args: argparse.Namespace) -> int:
    from rtdetr_slurm.submission.templates import commands, render

    if args.automl == "on":
        raise RequestError("--automl on: templates train once; `submit` searches")
    args.automl = "off"
    prepared = prepared_request(args)
    scripts = render(prepared)
    if get_action(prepared.loaded.action).trains:
        terminal.note("templates train once; `submit` searches for hyper-parameters (AutoML)")
    for note in prepared.plan.notes:
        terminal.note(note)
    if args.output is None:
        if args.json:
            terminal.document({"scripts": scripts})
        else:
            for text in scripts.values():
                terminal.out_lines(text)
        return ExitCode.OK
    files = {name: args.output.absolute() / f"{name}.sbatch" for name in scripts}
    _write(files, scripts)
    queue = commands(prepared, files)
    if args.json:
        paths = {name: str(path) for name, path in files.items()}
        terminal.document({"files": paths, "commands": queue})
        return ExitCode.OK
    for path in files.values():
        terminal.out(path)
    terminal.note("to queue them:")
    for line in queue:
        terminal.note(f"  {line}")
    return ExitCode.OK


def _write(files: dict[str, Path], scripts: dict[str, str]) -> None:
    """All of them, or none where one is there already."""
    for path in files.values():
        if path.exists():
            raise RequestError(f"{path} exists already and is left as it is")
    for name, path in files.items():
        path.parent.mkdir(parents=True, exist_ok=True)
        write_atomic(path, scripts[name], mode=PRIVATE_FILE)
