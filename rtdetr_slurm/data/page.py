"""What data are like as a page: findings, tables, histograms, and a sheet of annotated images.

One file without scripts that asks nobody for anything. Its size is bounded whatever the data: so
many classes, so many images.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from itertools import pairwise

from rtdetr_slurm import charts, figures
from rtdetr_slurm.charts import Bar, bar_chart
from rtdetr_slurm.data.everything import DataReport
from rtdetr_slurm.data.findings import Finding
from rtdetr_slurm.data.samples import SIDE, sample_pictures
from rtdetr_slurm.data.statistics import Numbers
from rtdetr_slurm.markup import SAFE, Markup, element, page, text_table

CLASSES = 200
"""Classes in the table at most."""
BARS = 30
"""Classes in the chart at most."""
_SIDES = (4, 8, 16, 32, 64, 96, 128, 256, 512, 1024)
_PER_IMAGE = (1, 2, 3, 5, 10, 20, 50, 100, 300)
_RATIOS = (0.2, 0.33, 0.5, 0.67, 1, 1.5, 2, 3, 5)
_STYLE = ".error { color: var(--wrong); } .warning { color: var(--missed); }"


def render_page(title: str, report: DataReport, numbers: Sequence[Numbers]) -> bytes:
    """The whole file, UTF-8; reads the images that it shows.

    Args:
        numbers: of each source of the report.
    """
    parts = [
        _key_numbers(report, numbers),
        *_findings(report),
        *_sources(report, numbers),
        *_classes(report, numbers),
        *_histograms(report, numbers),
        *_samples(report),
    ]
    style = charts.STYLE + figures.STYLE + _STYLE
    return page(title, parts, policy=SAFE, style=style)


def _key_numbers(report: DataReport, numbers: Sequence[Numbers]) -> Markup:
    classes = {each.id for one in numbers for each in one.classes if each.boxes}
    shown = (
        (sum(one.images for one in numbers), "images"),
        (sum(one.boxes for one in numbers), "boxes"),
        (len(classes), "classes with boxes"),
        (len(report.findings.errors), "errors"),
        (len(report.findings.warnings), "warnings"),
    )
    tiles = (element("div", element("b", str(number)), name) for number, name in shown)
    return element("div", *tiles, class_="numbers")


def _findings(report: DataReport) -> Iterator[Markup]:
    yield element("h2", "Findings")
    every = [*report.findings.errors, *report.findings.warnings]
    if not every:
        yield element("p", "Nothing is wrong.")
        return
    yield element("ul", *map(_finding, every))


def _finding(finding: Finding) -> Markup:
    field = ".".join(map(str, finding.field))
    level = element("b", finding.level, class_=finding.level)
    return element("li", level, " ", element("code", field), ": ", finding.message)


def _sources(report: DataReport, numbers: Sequence[Numbers]) -> Iterator[Markup]:
    yield element("h2", "Sources")
    head = ("annotations", "for", "images", "without boxes", "boxes", "crowd regions")
    every = zip(report.sources, report.labels, numbers, strict=True)
    rows = [
        (
            report.named(str(source.annotations.path)),
            label,
            *map(str, (one.images, one.empty, one.boxes, one.crowds)),
        )
        for (_, source), label, one in every
    ]
    yield text_table(head, rows)


def _classes(report: DataReport, numbers: Sequence[Numbers]) -> Iterator[Markup]:
    yield element("h2", "Classes")
    labelled = [*zip(report.labels, numbers, strict=True)]
    rows = [(label, each) for label, one in labelled for each in one.classes]
    rows.sort(key=lambda row: row[1].id)
    yield element(
        "p",
        "Objects are small below 32 × 32 pixels and large from 96 × 96 on, as COCO's scores count "
        f"them; width and height are those of the middle one. {_limited(len(rows), CLASSES)}",
    )
    head = ("class", "id", "for", "boxes", "images", "small", "medium", "large", "width", "height")
    yield text_table(
        head,
        [
            (
                each.name,
                str(each.id),
                label,
                *map(str, (each.boxes, each.images, each.small, each.medium, each.large)),
                f"{each.width:.0f}",
                f"{each.height:.0f}",
            )
            for label, each in rows[:CLASSES]
        ],
    )
    for label, one in labelled:
        most = sorted(one.classes, key=lambda each: -each.boxes)[:BARS]
        bars = [Bar(each.name, each.boxes, str(each.boxes)) for each in most]
        yield element("h3", f"Boxes by class: {label}")
        yield element("p", _limited(len(one.classes), BARS))
        yield bar_chart(f"boxes by class, {label}", bars)


def _histograms(report: DataReport, numbers: Sequence[Numbers]) -> Iterator[Markup]:
    shown: Sequence[tuple[str, Callable[[Numbers], Sequence[float]], Sequence[float], str]] = (
        ("Boxes by image", lambda one: one.per_image, _PER_IMAGE, ""),
        ("Sides of objects", lambda one: one.sides, _SIDES, " px"),
        ("Width by height of objects", lambda one: one.ratios, _RATIOS, ""),
    )
    for title, values, edges, unit in shown:
        yield element("h2", title)
        for label, one in zip(report.labels, numbers, strict=True):
            yield element("h3", label)
            yield bar_chart(f"{title.lower()}, {label}", histogram(values(one), edges, unit))


def histogram(values: Sequence[float], edges: Sequence[float], unit: str = "") -> list[Bar]:
    """How many values are below the first edge, from each on to the next, and from the last on."""
    counts = [0] * (len(edges) + 1)
    for value in values:
        counts[sum(value >= edge for edge in edges)] += 1
    names = [f"below {edges[0]:g}{unit}"]
    names += [f"{low:g} – {high:g}{unit}" for low, high in pairwise(edges)]
    names.append(f"from {edges[-1]:g}{unit} on")
    return [Bar(name, count, str(count)) for name, count in zip(names, counts, strict=True)]


def _samples(report: DataReport) -> Iterator[Markup]:
    yield element("h2", "Annotated images")
    pictures = list(sample_pictures(report.labels, [source for _, source in report.sources]))
    if not pictures:
        yield element("p", "There is no image here that can be shown.")
        return
    yield element(
        "p",
        f"Of at most {SIDE} pixels, of each class at least one where there is room. Rest on a box "
        "to see what it is.",
    )
    yield element("div", *pictures, class_="pictures")


def _limited(there_are: int, most: int) -> str:
    return "" if there_are <= most else f"Of {there_are} the first {most} are shown."
