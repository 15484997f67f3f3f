"""`rtdetr-slurm data convert`: a data set of another tool as COCO's files."""

from __future__ import annotations

import argparse
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

from rtdetr_slurm.cli import terminal
from rtdetr_slurm.contract import ExitCode
from rtdetr_slurm.data.convert import FORMS

if TYPE_CHECKING:
    from rtdetr_slurm.data.convert.convert import Converted


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "source",
        type=Path,
        metavar="DATA",
        help="folder of the data set, or its YAML, XML or JSON file",
    )
    parser.add_argument(
        "-o", "--output", type=Path, metavar="FOLDER", required=True, help="a new folder"
    )
    parser.add_argument(
        "--from", dest="form", choices=FORMS, help="what it is, where that is not clear"
    )
    parser.add_argument(
        "--images", type=Path, metavar="FOLDER", help="below which the images are, if not in DATA"
    )
    parser.add_argument(
        "--val-share",
        type=float,
        metavar="SHARE",
        help="put such a share of the training images, 0..1, into val, where there is none",
    )
    parser.add_argument("--json", action="store_true", help="print one JSON document")


def run(args: argparse.Namespace) -> int:
    from rtdetr_slurm.data.convert.convert import convert

    done = convert(
        args.source,
        args.output,
        form=args.form,
        images=args.images,
        val_share=args.val_share,
    )
    if args.json:
        terminal.document(_document(done))
        return ExitCode.OK
    for name, (images, boxes) in done.splits.items():
        terminal.out(f"{done.folder / name}: {images} images, {boxes} boxes")
    for number, name in done.classes.items():
        terminal.out(f"  class {number} {name}: {done.boxes_of[number]} boxes")
    if done.changes:
        terminal.out("changed:")
    for change in done.changes:
        terminal.out(f"  {change}")
    if "val" not in done.splits:
        terminal.note("there is nothing to validate with; --val-share 0.1 holds a tenth out")
    terminal.note(f"next: rtdetr-slurm init {done.folder}")
    return ExitCode.OK


def _document(done: Converted) -> dict[str, object]:
    return {
        "folder": str(done.folder),
        "from": done.form,
        "splits": {
            name: {"images": images, "boxes": boxes}
            for name, (images, boxes) in done.splits.items()
        },
        "classes": [
            {"id": number, "name": name, "boxes": done.boxes_of[number]}
            for number, name in done.classes.items()
        ],
        "changes": [asdict(change) for change in done.changes],
    }
