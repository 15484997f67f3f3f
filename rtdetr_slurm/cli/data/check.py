"""`rtdetr-slurm data check`: all that is wrong with the data of a spec, and what they are like."""

from __future__ import annotations

import argparse
import os
from collections.abc import Iterator, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rtdetr_slurm.actions import own_engine
from rtdetr_slurm.cli import terminal
from rtdetr_slurm.cli.table import table
from rtdetr_slurm.cli.told import Told
from rtdetr_slurm.cli.validate import loaded_request
from rtdetr_slurm.contract import ExitCode
from rtdetr_slurm.errors import explained

if TYPE_CHECKING:
    from rtdetr_slurm.actions import EngineOf
    from rtdetr_slurm.data.everything import DataReport
    from rtdetr_slurm.data.findings import Finding
    from rtdetr_slurm.data.statistics import Numbers
    from rtdetr_slurm.model_check import LocatedProblem
    from rtdetr_slurm.spec import LoadedSpec
    from rtdetr_slurm.submission.staging import Brought
    from rtdetr_slurm.yaml_source import KeyPath

_CLASSES = 100
"""So many classes are in the table at most."""


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
    from rtdetr_slurm.data.statistics import count

    loaded, engine_of, notes, wrong_ids = _loaded(args)
    for note in notes:
        terminal.note(f"note: {note}")
    report = _checked(loaded, engine_of, args)
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
        terminal.document(_document(loaded, report, numbers, fixed, ok=not left))
    else:
        _show(loaded, report, numbers, fixed)
    return ExitCode.BAD_REQUEST if left else ExitCode.OK


def _loaded(
    args: argparse.Namespace,
) -> tuple[LoadedSpec, EngineOf, list[str], Sequence[LocatedProblem]]:
    """The spec; with ids in dataset.eval_class_ids that do not fit dataset.num_classes it is read
    without them, for the data tell which of the two is wrong.

    Raises:
        RequestError: something else is wrong with it.
    """
    from rtdetr_slurm.model_check import InvalidInput

    try:
        return *loaded_request(args), ()
    except InvalidInput as error:
        field = "dataset.eval_class_ids"
        if not all(problem.field.startswith(field) for problem in error.problems):
            raise
        without = f"{field}=null"
        others = [text for text in args.overrides if not text.startswith(f"{field}=")]
        again = {**vars(args), "overrides": [*others, without]}
        loaded, engine_of, notes = loaded_request(argparse.Namespace(**again))
        given = tuple(one for one in loaded.source.overrides if one[1] != without)
        source = replace(loaded.source, overrides=given)
        return replace(loaded, source=source), engine_of, notes, error.problems


def _add_wrong_ids(report: DataReport, problems: Sequence[LocatedProblem]) -> None:
    from rtdetr_slurm.data.check_classes import EVAL_CLASS_IDS, right_values

    right = right_values([source.annotations for _, source in report.sources])
    correction = {name: value for name, value in right.items() if name == EVAL_CLASS_IDS}
    advice = f"; the data ask for {correction[EVAL_CLASS_IDS]}" if correction else ""
    message = "; ".join(problem.message for problem in problems) + advice
    report.findings.error(("dataset", "eval_class_ids"), message, correction)


def _checked(loaded: LoadedSpec, engine_of: EngineOf, args: argparse.Namespace) -> DataReport:
    from rtdetr_slurm.data.everything import check_everything
    from rtdetr_slurm.resolved_spec import with_values
    from rtdetr_slurm.spec import ExperimentConfig
    from rtdetr_slurm.spec.paths import absolute_paths

    def ranks_of(action: str) -> int:
        asked = loaded.topology_of(action)
        return asked.num_nodes * asked.num_gpus

    spec = absolute_paths(loaded.resolved(), Path.cwd())
    brought = _at_hand(loaded, spec, args)
    experiment = ExperimentConfig.model_validate(with_values(spec, brought.paths))
    with terminal.area() as area:

        def told(folder: Path, done: int, of: int) -> None:
            if area is not None and (done % 20 == 0 or done == of):
                area.draw(terminal.shown(f"decoding images of {folder}: {done}/{of}"))

        return check_everything(
            experiment,
            loaded.actions,
            workers=len(os.sched_getaffinity(0)),
            engine_of=engine_of,
            ranks_of=ranks_of,
            skip_bad_images=loaded.job.bad_images == "skip",
            staged_later=True,
            told=told,
        )


def _at_hand(loaded: LoadedSpec, spec: dict[str, Any], args: argparse.Namespace) -> Brought:
    """What the spec has elsewhere and is in the cache by now."""
    from rtdetr_slurm.plan.sources import staged_fields
    from rtdetr_slurm.site.discover import find_site
    from rtdetr_slurm.submission.staging import Brought, find_sources

    if not staged_fields(spec, loaded.actions, own_engine):
        return Brought()  # which no site has a say in
    found = find_site(args.site, os.environ)
    brought = find_sources(loaded, spec, loaded.actions, found, Told(), bring_all=args.fetch)
    for note in brought.notes:
        terminal.note(f"note: {note}")
    return brought


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


def _show(
    loaded: LoadedSpec, report: DataReport, numbers: list[Numbers], fixed: dict[str, Any]
) -> None:
    terminal.out_text(_source_table(report, numbers))
    terminal.out("")
    terminal.out_text(_class_table(report, numbers))
    terminal.out("")
    for finding in (*report.findings.errors, *report.findings.warnings):
        terminal.out(f"{finding.level}: {_located(loaded, finding)}")
    for name, value in fixed.items():
        terminal.out(f"fixed: {loaded.path}: {name}: {value}")
        if loaded.source.is_overridden(tuple(name.split("."))):
            terminal.note(f"note: {name} was given on the command line, and wins over the file")
    counts = (
        f"{len(some)} {level}{'' if len(some) == 1 else 's'}"
        for level, some in (
            ("error", report.findings.errors),
            ("warning", report.findings.warnings),
        )
    )
    terminal.out(f"{loaded.path}: data of {', '.join(loaded.actions)}: {', '.join(counts)}")


def _source_table(report: DataReport, numbers: list[Numbers]) -> Any:
    headings = (
        "SOURCE",
        "IMAGES",
        "EMPTY",
        "BOXES",
        "CROWDS",
        "PER IMAGE",
        "MOST",
        *_SIZES,
        "FILE",
    )
    rows = [
        (
            kind,
            f"{one.images}",
            f"{one.empty or ''}",
            f"{one.boxes}",
            f"{one.crowds or ''}",
            f"{one.boxes / one.images:.1f}" if one.images else "",
            f"{max(one.per_image, default=0)}",
            *map(str, one.sizes),
            str(source.annotations.path),
        )
        for (kind, source), one in zip(report.sources, numbers, strict=True)
    ]
    return table(headings, rows, [""] * len(rows), coloured="")


_SIZES = ("SMALL", "MEDIUM", "LARGE")


def _class_table(report: DataReport, numbers: list[Numbers]) -> Any:
    headings = ("ID", "CLASS", "SOURCE", "BOXES", "IMAGES", *_SIZES, "WIDTH", "HEIGHT")
    rows = [
        (
            str(each.id),
            each.name,
            kind,
            f"{each.boxes}",
            f"{each.images}",
            *(f"{count}" for count in (each.small, each.medium, each.large)),
            f"{each.width:.0f}",
            f"{each.height:.0f}",
        )
        for (kind, _), one in zip(report.sources, numbers, strict=True)
        for each in one.classes
    ]
    rows.sort(key=lambda row: int(row[0]))
    if len(rows) > _CLASSES:
        terminal.note(f"note: {_CLASSES} of {len(rows)} lines on classes; --json has all")
    return table(headings, rows[:_CLASSES], [""] * len(rows[:_CLASSES]), coloured="")


def _located(loaded: LoadedSpec, finding: Finding) -> LocatedProblem:
    from rtdetr_slurm.model_check import Problem, locate

    (located,) = locate(loaded.source, [Problem(finding.field, finding.message)])
    return located


def _document(
    loaded: LoadedSpec,
    report: DataReport,
    numbers: list[Numbers],
    fixed: dict[str, Any],
    *,
    ok: bool,
) -> dict[str, Any]:
    return {
        "ok": ok,
        "spec": str(loaded.path),
        "actions": [*loaded.actions],
        "findings": [*_finding_documents(loaded, report)],
        "corrections": report.corrections,
        "fixed": fixed,
        "sources": [
            {
                "kind": kind,
                "json_file": str(source.annotations.path),
                "image_dir": source.image_dir and str(source.image_dir),
                "images": one.images,
                "empty": one.empty,
                "boxes": one.boxes,
                "crowds": one.crowds,
                "most": max(one.per_image, default=0),
                "classes": [asdict(each) for each in one.classes],
            }
            for (kind, source), one in zip(report.sources, numbers, strict=True)
        ],
    }


def _finding_documents(loaded: LoadedSpec, report: DataReport) -> Iterator[dict[str, Any]]:
    for finding in report.findings:
        place = _located(loaded, finding)
        yield {
            "level": finding.level,
            "field": place.field,
            "file": place.file,
            "line": place.position and place.position.line,
            "column": place.position and place.position.column,
            "override": place.override,
            "message": finding.message,
            "correction": dict(finding.correction),
        }
