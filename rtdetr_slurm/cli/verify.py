"""`rtdetr-slurm verify`: whether a model file, and all that it has come from, is as it was."""

from __future__ import annotations

import argparse
from pathlib import Path

from rtdetr_slurm.cli import terminal
from rtdetr_slurm.contract import LINEAGE_VERSION, ExitCode
from rtdetr_slurm.runs.lineage import Lineage, lineage_of


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "file", type=Path, metavar="FILE", help="an engine, an ONNX file or a checkpoint"
    )
    parser.add_argument("--json", action="store_true", help="print one JSON document")


def run(args: argparse.Namespace) -> int:
    found = lineage_of(args.file)
    if args.json:
        terminal.document(_document(args.file, found))
    else:
        _print(found)
    return ExitCode.FAILED if found.broken else ExitCode.OK


def _print(found: Lineage) -> None:
    width = max((len(link.what) for link in found.links), default=0)
    for link in found.links:
        mark, said = ("ok", str(link.path)) if link.problem is None else ("BROKEN", link.problem)
        terminal.out(f"{mark:<8}{link.what:<{width}}  {said}")
    for line in found.unknown:
        terminal.out(f"{'unknown':<8}{line}")
    if found.broken:
        names = ", ".join(dict.fromkeys(link.what for link in found.broken))
        terminal.note(f"broken: {names}")


def _document(file: Path, found: Lineage) -> dict[str, object]:
    return {
        "schema_version": LINEAGE_VERSION,
        "file": str(file.absolute()),
        "outcome": "broken" if found.broken else "whole",
        "links": [
            {
                "what": link.what,
                "path": str(link.path),
                "sha256": link.sha256,
                "record": str(link.record),
                "problem": link.problem,
            }
            for link in found.links
        ],
        "unknown": list(found.unknown),
    }
