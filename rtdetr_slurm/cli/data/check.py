"""`rtdetr-slurm data check`: all that is wrong with the data of a spec, and what they are like."""

from __future__ import annotations

import argparse
import os
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rtdetr_slurm.cli import terminal
from rtdetr_slurm.cli.told import Told
from rtdetr_slurm.cli.validate import loaded_request
from rtdetr_slurm.contract import ExitCode
from rtdetr_slurm.errors import RequestError, explained

if TYPE_CHECKING:
    from rtdetr_slurm.data.everything import DataReport
    from rtdetr_slurm.data.statistics import Numbers
    from rtdetr_slurm.model_check import LocatedProblem
    from rtdetr_slurm.spec import LoadedSpec
    from rtdetr_slurm.yaml_source import KeyPath


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("spec", type=Path, metavar="SPEC", help="the experiment YAML")
    parser.add_argument(
        "overrides", nargs="*", metavar="key=value", help="values that win over the spec's"
    )
    parser.add_argument("--action", metavar="ACTION", help="what the spec is for")
    parser.add_argument("--site", metavar="FILE", help="site profile; 'local' is this machine")
    parser.add_argument(
        "--html", type=Path, metavar="FILE", help="write a page with histograms and samples"
    )
    parser.add_argument(
        "--fix",
        action="store_true",
        help="write the right dataset.num_classes and dataset.eval_class_ids into SPEC",
    )
    parser.add_argument(
        "--fetch",
        action="store_true",
        help="fetch and unpack what is elsewhere, and look at its images, too",
    )
    parser.add_argument("--json", action="store_true", help="print one JSON document")


def run(args: argparse.Namespace) -> int:
    from rtdetr_slurm.cli.data.shown import report_document, show_report
    from rtdetr_slurm.data.statistics import count

    if args.html and not args.html.parent.is_dir():
        raise RequestError(f"--html {args.html}: there is no folder {args.html.parent}")
    loaded, notes, wrong_ids = _loaded(args)
    for note in notes:
        terminal.note(f"note: {note}")
    report = _checked(args, loaded)
    if wrong_ids:
        _add_wrong_ids(report, wrong_ids)
    numbers = [count(source.annotations) for _, source in report.sources]
    fixed = _fix(args.spec, report.corrections) if args.fix else {}
    if args.html:
        _write_page(args.html, loaded, report, numbers)
    left = [
        finding
        for finding in report.findings.errors
        if not (finding.correction and finding.correction.keys() <= fixed.keys())
    ]
    if args.json:
        terminal.document(report_document(loaded, report, numbers, fixed, ok=not left))
    else:
        show_report(loaded, report, numbers, fixed)
    return ExitCode.BAD_REQUEST if left else ExitCode.OK


def _loaded(
    args: argparse.Namespace,
) -> tuple[LoadedSpec, list[str], Sequence[LocatedProblem]]:
    """The spec; with ids in dataset.eval_class_ids that do not fit dataset.num_classes it is read
    without them, for the data tell which of the two is wrong.

    Raises:
        RequestError: something else is wrong with it.
    """
    from rtdetr_slurm.model_check import InvalidInput

    try:
        loaded, _, notes = loaded_request(args)
        return loaded, notes, ()
    except InvalidInput as error:
        field = "dataset.eval_class_ids"
        if not all(problem.field.startswith(field) for problem in error.problems):
            raise
        without = f"{field}=null"
        others = [text for text in args.overrides if not text.startswith(f"{field}=")]
        again = {**vars(args), "overrides": [*others, without]}
        loaded, _, notes = loaded_request(argparse.Namespace(**again))
        given = tuple(one for one in loaded.source.overrides if one[1] != without)
        source = replace(loaded.source, overrides=given)
        return replace(loaded, source=source), notes, error.problems


def _add_wrong_ids(report: DataReport, problems: Sequence[LocatedProblem]) -> None:
    from rtdetr_slurm.data.check_classes import EVAL_CLASS_IDS, right_values

    right = right_values([source.annotations for _, source in report.sources])
    correction = {name: value for name, value in right.items() if name == EVAL_CLASS_IDS}
    advice = f"; the data ask for {correction[EVAL_CLASS_IDS]}" if correction else ""
    message = "; ".join(problem.message for problem in problems) + advice
    report.findings.error(("dataset", "eval_class_ids"), message, correction)


def _checked(args: argparse.Namespace, loaded: LoadedSpec) -> DataReport:
    from rtdetr_slurm.site.discover import FoundSite, NoProfile, find_site, local_site
    from rtdetr_slurm.submission.data_check import check_data_of

    try:
        found = find_site(args.site, os.environ)
    except NoProfile:
        found = FoundSite(local_site())
    with terminal.area() as area:

        def told(folder: Path, done: int, of: int) -> None:
            if area is not None and (done % 20 == 0 or done == of):
                area.draw(terminal.shown(f"{folder}: {done}/{of} images decoded"))

        report, notes = check_data_of(loaded, found, bring_all=args.fetch, tell=Told(), told=told)
    for note in notes:
        terminal.note(f"note: {note}")
    return report


def _fix(spec: Path, corrections: dict[str, Any]) -> dict[str, Any]:
    """Write what is known to be right into the spec; returns it.

    Raises:
        RequestError, SiteError: the file cannot be changed; it is as it was.
    """
    from rtdetr_slurm.files import write_atomic
    from rtdetr_slurm.yaml_edit import with_values

    if not corrections:
        return {}
    path = spec.resolve()  # a link stays one
    try:
        before = path.read_bytes().decode()
        values: dict[KeyPath, Any] = {
            tuple(name.split(".")): value for name, value in corrections.items()
        }
        mark = "\ufeff" * before.startswith("\ufeff")
        after = mark + with_values(before.removeprefix(mark), values, spec)
        write_atomic(path, after.encode(), mode=path.stat().st_mode & 0o777)
    except OSError as error:
        raise explained(error) from error
    return corrections


def _write_page(path: Path, loaded: LoadedSpec, report: DataReport, numbers: list[Numbers]) -> None:
    from rtdetr_slurm.data.page import render_page
    from rtdetr_slurm.files import write_atomic

    title = f"Data of {loaded.path.name}"
    write_atomic(path, render_page(title, report, numbers))
