"""`rtdetr-slurm reproduce`: run a training again as it was, and compare the checkpoints."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING

from rtdetr_slurm.cli import terminal
from rtdetr_slurm.cli.runs import add_run_arguments, chosen_run, run_root
from rtdetr_slurm.contract import REPRODUCTION_VERSION, ExitCode
from rtdetr_slurm.runs.run import Run, find_run, open_run
from rtdetr_slurm.runs.state import StageState

if TYPE_CHECKING:
    from rtdetr_slurm.runs.checkpoint_content import Comparison
    from rtdetr_slurm.submission.reproduce import Finished

_SHOWN = 10
"""So many differences are named."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add_run_arguments(parser)
    parser.add_argument(
        "--with",
        dest="other",
        metavar="RUN",
        help="run nothing: compare with this run, which has ended",
    )
    parser.add_argument("--json", action="store_true", help="print one JSON document")


def run(args: argparse.Namespace) -> int:
    from rtdetr_slurm.submission.reproduce import compare, finished_training

    before = finished_training(chosen_run(args))
    if args.other is not None:
        again = open_run(find_run(args.other, lambda: run_root(args.site)))
    else:
        done = _run_again(before)
        if isinstance(done, int):
            return done
        again = done
    after = finished_training(again)
    found = compare(before, after)
    if args.json:
        terminal.document(_document(before, after, found))
    else:
        _print(before, after, found)
    return ExitCode.OK if found.same else ExitCode.FAILED


def _run_again(before: Finished) -> Run | int:
    """The run that has done the same, or the exit code where it has not come to its end."""
    from rtdetr_slurm.cli.watching import INTERRUPTED_BY_USER, follow, print_end
    from rtdetr_slurm.submission.reproduce import run_again

    again = run_again(before, terminal.note)
    terminal.note(f"submitted {again.id}, which does what {before.run.id} did")
    try:
        report = follow(again, None)
    except KeyboardInterrupt:
        terminal.note(
            f"\ndetached; the run goes on. When it has ended: rtdetr-slurm reproduce "
            f"{before.run.path} --with {again.path}"
        )
        return INTERRUPTED_BY_USER
    if report.state is not StageState.SUCCESS:
        print_end(report)
        return ExitCode.FAILED
    return again


def _print(before: Finished, after: Finished, found: Comparison) -> None:
    megabytes = found.tensor_bytes / 1e6
    what = f"{found.tensors} tensors ({megabytes:.1f} MB) and {found.values} other values"
    names = f"{before.run.id} and {after.run.id}: {before.checkpoint.name}"
    if found.same:
        terminal.out(f"same: {names}")
        terminal.note(
            f"{what} are equal to the last byte; only the names of the results folders differ"
        )
        return
    terminal.out(f"different: {names}")
    terminal.note(f"{len(found.differences)} of {what} differ:")
    for name in found.differences[:_SHOWN]:
        terminal.note(f"  {terminal.shown(name)}")
    if len(found.differences) > _SHOWN:
        terminal.note(f"  … and {len(found.differences) - _SHOWN} more (--json has all)")


def _document(before: Finished, after: Finished, found: Comparison) -> dict[str, object]:
    return {
        "schema_version": REPRODUCTION_VERSION,
        "outcome": "same" if found.same else "different",
        "runs": [before.run.id, after.run.id],
        "checkpoints": [str(before.checkpoint), str(after.checkpoint)],
        "tensors": found.tensors,
        "tensor_bytes": found.tensor_bytes,
        "values": found.values,
        "differences": found.differences,
    }
