"""report.html: what a detector is worth and where it goes wrong, in one file without scripts.

It opens from anywhere and asks nobody for anything: charts are SVG, images are in it. Its size is
bounded whatever the data set: so many classes, so many images.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from rtdetr_slurm import charts, figures
from rtdetr_slurm.charts import (
    Axis,
    Bar,
    Line,
    bar_chart,
    line_chart,
    matrix_chart,
    spanning,
)
from rtdetr_slurm.contract import Kpi
from rtdetr_slurm.figures import figure
from rtdetr_slurm.markup import SAFE, Markup, element, page, text_table
from rtdetr_slurm.vision.analysis import KINDS, NO_THRESHOLD, RECALLS, Analysis
from rtdetr_slurm.vision.assessment import Assessment
from rtdetr_slurm.vision.pictures import PICTURES, SIDE, Picture
from rtdetr_slurm.vision.tradeoff import Tradeoff, tradeoff_section

TABLE_CLASSES = 200
"""Classes in the table at most."""
CURVE_CLASSES = 10
"""Classes with a curve of their own at most."""
MATRIX_CLASSES = 25
"""Classes in the confusion matrix at most."""

ERROR_WORDS = {
    "classification": "right place, wrong class",
    "localisation": "right class, overlap below 0.5",
    "duplicate": "found once more",
    "background": "nothing there",
    "missed": "not found",
    "both": "wrong class, overlap below 0.5",
}
KEYS = (
    ("truth", "boxes that were found"),
    ("missed", "boxes that were not"),
    ("right", "detections that are right"),
    ("wrong", "detections that are wrong"),
)


@dataclass(frozen=True)
class Report:
    """What a report is made of.

    Attributes:
        facts: name and value of what was scored on what.
        assessment: None where nothing was scored.
        history: KPI to epoch, counted from 0, to value; empty but for a training.
        tradeoff: None where no latency was measured.
    """

    title: str
    facts: Sequence[tuple[str, str]]
    assessment: Assessment | None = None
    pictures: Sequence[Picture] = ()
    history: Mapping[str, Mapping[int, float]] = field(default_factory=dict)
    tradeoff: Tradeoff | None = None


def render_report(report: Report) -> bytes:
    """The whole file, UTF-8."""
    parts = [_facts(report.facts)]
    if report.assessment is not None:
        parts.append(_key_numbers(report.assessment))
    if report.tradeoff is not None:
        parts += tradeoff_section(report.tradeoff)
    if report.history:
        parts += _training(report.history)
    if report.assessment is not None:
        parts += _curves(report.assessment)
        parts += _class_table(report.assessment)
        parts += _errors(report.assessment.analysis)
        parts += _confusion(report.assessment)
        parts += _pictures(report.pictures)
        parts += _coco(report.assessment)
    return page(report.title, parts, policy=SAFE, style=charts.STYLE + figures.STYLE)


def _facts(facts: Sequence[tuple[str, str]]) -> Markup:
    rows = [element("tr", element("th", name), element("td", value)) for name, value in facts]
    return element("table", *rows)


def _key_numbers(assessment: Assessment) -> Markup:
    summary = assessment.metrics.summary
    shown = ("mAP", "mAP50", "mAP75", "mAR_100")
    return element(
        "div",
        *(element("div", element("b", _number(summary[name])), name) for name in shown),
        class_="numbers",
    )


def _training(history: Mapping[str, Mapping[int, float]]) -> Iterator[Markup]:
    yield element("h2", "Training")
    epochs = [epoch + 1 for curve in history.values() for epoch in curve]
    x = spanning("epoch", epochs, low=min(epochs), whole=True)
    for label, names, top in (
        ("loss", (Kpi.TRAIN_LOSS, Kpi.VAL_LOSS), None),
        ("mAP", (Kpi.VAL_MAP, Kpi.VAL_MAP50), 1.0),
    ):
        lines = [
            Line(name, [(epoch + 1, value) for epoch, value in sorted(history[name].items())])
            for name in names
            if name in history
        ]
        values = [value for line in lines for _, value in line.points]
        if lines:
            y = Axis(label, 0, top) if top else spanning(label, values, low=0)
            yield line_chart(f"{label} by epoch", lines, x, y)


def _curves(assessment: Assessment) -> Iterator[Markup]:
    curves, results = assessment.metrics.curves, assessment.analysis.classes
    yield element("h2", "Precision and recall")
    if not curves:
        yield element("p", "There are no boxes to find.")
        return
    boxes = {assessment.table.classes[one]: result.boxes for one, result in results.items()}
    chosen = sorted(curves, key=lambda name: -boxes[name])[:CURVE_CLASSES]
    mean = np.mean([*curves.values()], axis=0)
    lines = [
        Line(name, [*zip(RECALLS.tolist(), curves[name].tolist(), strict=True)]) for name in chosen
    ]
    lines.append(
        Line("mean of all classes", [*zip(RECALLS.tolist(), mean.tolist(), strict=True)], True)
    )
    axes = Axis("recall", 0, 1), Axis("precision", 0, 1)
    yield element(
        "p",
        "At an IoU of 0.5: the highest precision at a recall or beyond it. The area below a curve "
        f"is the class's AP50. {_limited(len(chosen), len(curves), 'those with most boxes')}",
    )
    yield line_chart("precision by recall", lines, *axes)


def _class_table(assessment: Assessment) -> Iterator[Markup]:
    results, names = assessment.analysis.classes, assessment.table.classes
    chosen = sorted(sorted(results, key=lambda one: -results[one].boxes)[:TABLE_CLASSES])
    yield element("h2", "Classes")
    yield element(
        "p",
        "The threshold is the score from which on F1, the harmonic mean of precision and recall at "
        "an IoU of 0.5, is highest. "
        f"{_limited(len(chosen), len(results), 'those with most boxes')}",
    )
    head = ("class", "id", "boxes", "AP", "AP50", "threshold", "precision", "recall", "F1")
    rows = []
    for one in chosen:
        result, ap = results[one], assessment.metrics.per_class[names[one]]
        at_threshold = (result.threshold, result.precision, result.recall, result.f1)
        numbers = map(_number, (ap["AP"], ap["AP50"], *at_threshold))
        rows.append((names[one], str(one), str(result.boxes), *numbers))
    yield text_table(head, rows)


def _errors(analysis: Analysis) -> Iterator[Markup]:
    yield element("h2", "Errors")
    yield element(
        "p",
        "Of the detections that reach their class's threshold "
        f"({NO_THRESHOLD:g} where there is none), by the kinds of TIDE (Bolya et al. 2020); and "
        "what mAP50 would gain without the errors of a kind, over all detections.",
    )
    counts = [
        Bar(kind, count, f"{count}: {ERROR_WORDS[kind]}")
        for kind, count in zip(KINDS, analysis.counts, strict=True)
    ]
    gains = [
        Bar(kind, gain, f"+ {_number(gain)}")
        for kind, gain in zip(KINDS, analysis.gains, strict=True)
    ]
    yield element("h3", "How often")
    yield bar_chart("errors by kind", counts)
    yield element("h3", "What they cost in mAP50")
    yield bar_chart("mAP50 lost by kind of error", gains)


def _confusion(assessment: Assessment) -> Iterator[Markup]:
    matrix, classes = assessment.analysis.confusion, assessment.matching.classes
    wrong = matrix.sum(axis=0) + matrix.sum(axis=1) - 2 * matrix.diagonal()
    chosen = np.sort(np.argsort(-wrong[:-1], kind="stable")[:MATRIX_CLASSES])
    shown = [*chosen.tolist(), len(classes)]
    names = [assessment.table.classes[classes[one]] for one in chosen.tolist()]
    yield element("h2", "Confusion between classes")
    yield element(
        "p",
        "A row for each true class, a column for each class found, shaded by the share of the row. "
        "A box counts once, where the detection that found it has put it, or else the best that "
        "has taken it for another class; in the last row are the detections that remain. "
        f"{_limited(len(names), len(classes), 'those with most errors')}",
    )
    yield element(
        "div",
        matrix_chart(
            "true classes by classes found",
            [*names, "no box left"],
            [*names, "not found"],
            matrix[np.ix_(shown, shown)].tolist(),
        ),
        class_="wide",
    )


def _pictures(pictures: Sequence[Picture]) -> Iterator[Markup]:
    yield element("h2", "Images with most errors")
    if not pictures:
        yield element("p", "There is no image with an error.")
        return
    yield element(
        "p", f"At most {PICTURES}, of at most {SIDE} pixels. Rest on a box to see what it is."
    )
    keys = []
    for sort, words in KEYS:
        hide = element("input", type="checkbox", id=f"no-{sort}")
        key = element("span", words, class_=f"key {sort}")
        keys += [element("label", key, " (hide ", hide, ")"), " "]
    yield element("p", *keys)
    yield element("div", *(_picture(one) for one in pictures), class_="pictures")


def _picture(picture: Picture) -> Markup:
    plural = "" if picture.errors == 1 else "s"
    return figure(
        picture.jpeg,
        (picture.width, picture.height),
        picture.boxes,
        picture.name,
        f"{picture.name}: {picture.errors} error{plural}",
        written=("missed", "wrong"),
    )


def _coco(assessment: Assessment) -> Iterator[Markup]:
    yield element("h2", "COCO's twelve numbers")
    numbers = assessment.metrics.summary.items()
    yield text_table((), [(name, _number(value)) for name, value in numbers])


def _limited(shown: int, there_are: int, which: str) -> str:
    return "" if shown == there_are else f"Of {there_are} classes {shown} are shown, {which}."


def _number(value: float) -> str:
    return "–" if math.isnan(value) else f"{value:.3f}"
