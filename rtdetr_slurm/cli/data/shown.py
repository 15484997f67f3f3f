"""How what was found out about data is shown."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from rtdetr_slurm.cli import terminal
from rtdetr_slurm.cli.table import table
from rtdetr_slurm.model_check import LocatedProblem, Problem, locate

if TYPE_CHECKING:
    from rich.text import Text

    from rtdetr_slurm.data.everything import DataReport
    from rtdetr_slurm.data.findings import Finding
    from rtdetr_slurm.data.statistics import Numbers
    from rtdetr_slurm.spec import LoadedSpec

_CLASSES = 100
"""So many lines are in the table of classes at most."""
_SIZES = ("SMALL", "MEDIUM", "LARGE")


def show_report(
    loaded: LoadedSpec, report: DataReport, numbers: Sequence[Numbers], fixed: Mapping[str, Any]
) -> None:
    """Tables, all that was found with its place, and what was mended.

    Args:
        numbers: of each source of the report.
        fixed: dotted fields and values that were written into the spec.
    """
    if report.sources:
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


def _source_table(report: DataReport, numbers: Sequence[Numbers]) -> Text:
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
            label,
            f"{one.images}",
            f"{one.empty or ''}",
            f"{one.boxes}",
            f"{one.crowds or ''}",
            f"{one.boxes / one.images:.1f}" if one.images else "",
            f"{max(one.per_image, default=0)}",
            *map(str, one.sizes),
            report.named(str(source.annotations.path)),
        )
        for (_, source), label, one in zip(report.sources, report.labels, numbers, strict=True)
    ]
    return table(headings, rows, [""] * len(rows), coloured="")


def _class_table(report: DataReport, numbers: Sequence[Numbers]) -> Text:
    headings = ("ID", "CLASS", "SOURCE", "BOXES", "IMAGES", *_SIZES, "WIDTH", "HEIGHT")
    rows = [
        (
            str(each.id),
            each.name,
            label,
            f"{each.boxes}",
            f"{each.images}",
            *(f"{count}" for count in (each.small, each.medium, each.large)),
            f"{each.width:.0f}",
            f"{each.height:.0f}",
        )
        for label, one in zip(report.labels, numbers, strict=True)
        for each in one.classes
    ]
    rows.sort(key=lambda row: int(row[0]))
    if len(rows) > _CLASSES:
        terminal.note(f"note: {_CLASSES} of {len(rows)} lines on classes; --json has all")
    return table(headings, rows[:_CLASSES], [""] * len(rows[:_CLASSES]), coloured="")


def _located(loaded: LoadedSpec, finding: Finding) -> LocatedProblem:
    (located,) = locate(loaded.source, [Problem(finding.field, finding.message)])
    return located


def report_document(
    loaded: LoadedSpec,
    report: DataReport,
    numbers: Sequence[Numbers],
    fixed: Mapping[str, Any],
    *,
    ok: bool,
) -> dict[str, Any]:
    """The same as plain data.

    Args:
        ok: whether nothing is wrong any more.
    """
    return {
        "ok": ok,
        "spec": str(loaded.path),
        "actions": [*loaded.actions],
        "findings": [*_finding_documents(loaded, report)],
        "corrections": report.corrections,
        "fixed": dict(fixed),
        "bad_images": [
            {"path": report.named(str(path)), "problem": problem}
            for path, problem in report.bad_images
        ],
        "sources": [
            {
                "kind": kind,
                "json_file": report.named(str(source.annotations.path)),
                "image_dir": source.image_dir and report.named(str(source.image_dir)),
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
