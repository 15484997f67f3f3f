"""What accuracy costs in time: forms of one detector, measured, as a part of a report."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from rtdetr_slurm.charts import Axis, Dot, dot_chart, spanning
from rtdetr_slurm.markup import Markup, element

_HEADROOM = 1.1
"""For the number above the highest dot."""


class Latency(NamedTuple):
    """How long a detector takes for a batch.

    Attributes:
        runs: that were timed.
        p50, p90, p99: milliseconds of a run; of so many runs, so much of p99 is the slowest one.
        images_per_second: over all runs, the pauses between them left out.
    """

    batch_size: int
    runs: int
    p50: float
    p90: float
    p99: float
    images_per_second: float


@dataclass(frozen=True)
class Measured:
    """A form of a detector: what it is worth, and how long it takes.

    Attributes:
        name: for people, short.
        where: it runs, and in what.
        mean_ap: in 0..1; NaN where there are no boxes to find.
        latency: by batch size, the smallest first; empty where it was not timed.
    """

    name: str
    where: str
    mean_ap: float
    latency: Sequence[Latency] = ()

    @property
    def can_be_drawn(self) -> bool:
        return bool(self.latency) and math.isfinite(self.mean_ap)


@dataclass(frozen=True)
class Tradeoff:
    """Forms of a detector, and on what and with which clock they were measured, in words."""

    forms: Sequence[Measured]
    note: str


def pareto_front(forms: Sequence[Measured]) -> list[Measured]:
    """Those for which none is both as fast and better, or faster and as good; fastest first."""
    front: list[Measured] = []
    for form in sorted((form for form in forms if form.can_be_drawn), key=_fast_and_good):
        if not front or form.mean_ap > front[-1].mean_ap:
            front.append(form)
    return front


def _fast_and_good(form: Measured) -> tuple[float, float]:
    return form.latency[0].p50, -form.mean_ap


def tradeoff_section(tradeoff: Tradeoff) -> Iterator[Markup]:
    """A part of a report: a chart of accuracy against latency, and the numbers."""
    yield element("h2", "Accuracy against latency")
    yield element("p", tradeoff.note)
    drawn = [form for form in tradeoff.forms if form.can_be_drawn]
    if drawn:
        dots = [Dot(form.name, form.latency[0].p50, form.mean_ap) for form in drawn]
        low, high = min(dot.x for dot in dots), max(dot.x for dot in dots)
        x = Axis("milliseconds (p50)", low / 1.5, high * 1.5, log=True)
        y = spanning("mAP", [dot.y * _HEADROOM for dot in dots], low=0)
        front = [(form.latency[0].p50, form.mean_ap) for form in pareto_front(drawn)]
        yield dot_chart("mAP by latency", dots, x, y, front)
    head = ("", "in", "mAP", "images at once", "runs", "p50 ms", "p90 ms", "p99 ms", "images/s")
    rows = [element("tr", *(element("th", name) for name in head))]
    for form in tradeoff.forms:
        said = "–" if math.isnan(form.mean_ap) else f"{form.mean_ap:.4f}"
        for one in form.latency or (None,):
            numbers: Sequence[str] = ("–",) * 6
            if one is not None:
                times = (f"{one.p50:.2f}", f"{one.p90:.2f}", f"{one.p99:.2f}")
                numbers = (str(one.batch_size), str(one.runs), *times)
                numbers = (*numbers, f"{one.images_per_second:.1f}")
            cells = (form.name, form.where, said, *numbers)
            rows.append(element("tr", *(element("td", cell) for cell in cells)))
    yield element("div", element("table", *rows), class_="wide")
