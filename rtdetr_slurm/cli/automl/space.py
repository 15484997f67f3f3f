"""`rtdetr-slurm automl space`: what a spec has searched."""

from __future__ import annotations

import argparse
from dataclasses import asdict
from pathlib import Path

from rtdetr_slurm.actions import get_action
from rtdetr_slurm.cli import terminal
from rtdetr_slurm.cli.table import table
from rtdetr_slurm.cli.validate import loaded_request
from rtdetr_slurm.contract import ExitCode
from rtdetr_slurm.errors import RequestError


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("spec", type=Path, metavar="SPEC", help="the experiment YAML")
    parser.add_argument(
        "overrides", nargs="*", metavar="key=value", help="values that win over the spec's"
    )
    parser.add_argument("--action", metavar="ACTION", help="train, or distill")
    parser.add_argument("--site", metavar="FILE", help="site profile; 'local' is this machine")
    parser.add_argument("--json", action="store_true", help="print one JSON document")


def run(args: argparse.Namespace) -> int:
    from rtdetr_slurm.automl.describe import range_text
    from rtdetr_slurm.automl.policy import space_of

    loaded, engine_of, notes = loaded_request(args)
    if not get_action(loaded.action).trains:
        raise RequestError(f"{loaded.action} is never searched around; trainings are")
    space = space_of(loaded, loaded.resolved(), engine_of)
    for note in notes:
        terminal.note(f"note: {note}")
    if args.json:
        searched = [asdict(parameter) for parameter in space.parameters]
        terminal.document({"searched": searched, "left_out": dict(space.left_out)})
        return ExitCode.OK
    rows = [(one.field, f"{one.default}", range_text(one)) for one in space.parameters]
    terminal.out_text(table(("FIELD", "SPEC", "RANGE"), rows, [""] * len(rows), coloured=""))
    for name, why in space.left_out.items():
        terminal.note(f"not searched: {name}: {why}")
    return ExitCode.OK
