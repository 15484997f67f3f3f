"""Charts as SVG for an HTML page: lines, dots, bars, a matrix. Names may hold anything."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

from rtdetr_slurm.markup import Markup, element, joined

STYLE = """
svg text { font: 12px system-ui, sans-serif; fill: currentColor; unicode-bidi: isolate; }
svg .grid { stroke: var(--line); } svg .cell { stroke: var(--line); }
svg circle:not([fill]) { fill: currentColor; opacity: .55; } svg text.on-dark { fill: #fff; }
.chart { max-width: 100%; height: auto; }
"""
"""How they look in a page."""
COLOURS = (
    *("#4477cc", "#cc6633", "#339966", "#aa4499", "#997700"),
    *("#22a0b0", "#cc3355", "#77883a", "#8866cc", "#888888"),
)
"""For lines and bars; told apart on white and on black."""
WIDTH, HEIGHT = 660, 320
LEFT, RIGHT, TOP, BOTTOM = 56, 200, 12, 44
"""Room around a line chart for its axes and its legend."""
POINTS = 60
"""Up to so many points of a line are marked one by one."""
NAME_LENGTH = 22
"""Characters of a name that have room; all of it is shown where the pointer rests."""


@dataclass(frozen=True)
class Line:
    """A curve; a point that is not finite interrupts it.

    Attributes:
        strong: drawn thicker, and not in one of the colours.
    """

    name: str
    points: Sequence[tuple[float, float]]
    strong: bool = False


@dataclass(frozen=True)
class Dot:
    """A point with a name."""

    name: str
    x: float
    y: float


@dataclass(frozen=True)
class Axis:
    """What an axis shows, from where to where.

    Attributes:
        whole: of whole numbers.
        log: equal steps are equal factors; all of it is above 0.
    """

    label: str
    low: float
    high: float
    whole: bool = False
    log: bool = False

    def place(self, value: float) -> float:
        """Where a value is, from 0 at the low end to 1 at the high one."""
        if self.log:
            return math.log(value / self.low) / math.log(self.high / self.low)
        return (value - self.low) / (self.high - self.low)

    def ticks(self, most: int = 6) -> list[float]:
        """Round numbers within the axis."""
        if self.log:
            decades = range(math.floor(math.log10(self.low)), math.ceil(math.log10(self.high)) + 1)
            round_ones = [factor * 10.0**decade for decade in decades for factor in (1, 2, 5)]
            within = [tick for tick in round_ones if self.low <= tick <= self.high]
            return within if len(within) <= 2 * most else within[::3]
        span = self.high - self.low
        step = 10.0 ** math.floor(math.log10(span / most))
        step *= next(factor for factor in (1, 2, 5, 10) if span / (step * factor) <= most)
        step = max(step, 1.0) if self.whole else step
        first, last = math.ceil(self.low / step - 1e-9), math.floor(self.high / step + 1e-9)
        return [number * step for number in range(first, last + 1)]


@dataclass(frozen=True)
class Bar:
    name: str
    value: float
    text: str


def spanning(
    label: str, values: Sequence[float], *, low: float | None = None, whole: bool = False
) -> Axis:
    """An axis with room for all finite values.

    Args:
        low: where it begins; None: at the lowest value.
    """
    finite = [value for value in values if math.isfinite(value)] or [0.0]
    begin = min(finite) if low is None else low
    end = max(finite)
    return Axis(label, begin, end if end > begin else begin + 1.0, whole)


def line_chart(title: str, lines: Sequence[Line], x: Axis, y: Axis) -> Markup:
    """Curves in one frame, with a legend beside it."""
    parts, at = _frame(x, y)
    right = WIDTH - RIGHT
    for number, line in enumerate(lines):
        look = _look(number, line)
        parts += [_curve([at(point) for point in part], look) for part in _unbroken(line.points)]
        if len(line.points) <= POINTS:
            parts += [
                element("circle", _title(f"{line.name}: {v:.4g} at {u:.6g}"), cx=cx, cy=cy, r=2.5)
                for (u, v), (cx, cy) in ((one, at(one)) for one in _finite(line.points))
            ]
        row = TOP + 8 + number * 20
        parts.append(_curve([(right + 12, row), (right + 32, row)], look))
        parts.append(_text(line.name, right + 38, row + 4, "start"))
    return _svg(title, WIDTH, max(HEIGHT, TOP + 20 * len(lines)), parts)


def dot_chart(
    title: str, dots: Sequence[Dot], x: Axis, y: Axis, front: Sequence[tuple[float, float]] = ()
) -> Markup:
    """Numbered dots in one frame, with their names beside it.

    Args:
        front: points that a line goes through.
    """
    parts, at = _frame(x, y)
    if front:
        thin: dict[str, str | float] = {"stroke": "currentColor", "stroke_width": 1.2}
        parts.append(_curve([at(point) for point in front], thin))
    for number, dot in enumerate(dots):
        fill, row = COLOURS[number % len(COLOURS)], TOP + 8 + number * 20
        across, up = at((dot.x, dot.y))
        told = _title(f"{dot.name}: {dot.y:.4g} at {dot.x:.4g}")
        look: dict[str, str | float] = {"r": 5, "fill": fill}
        parts.append(element("circle", told, cx=across, cy=up, **look))
        parts.append(_text(str(number + 1), across, up - 8))
        parts.append(element("circle", cx=WIDTH - RIGHT + 12, cy=row, **look))
        parts.append(_text(str(number + 1), WIDTH - RIGHT + 36, row + 4, "end"))
        parts.append(_text(dot.name, WIDTH - RIGHT + 42, row + 4, "start"))
    return _svg(title, WIDTH, max(HEIGHT, TOP + 20 * len(dots)), parts)


def bar_chart(title: str, bars: Sequence[Bar]) -> Markup:
    """Bars from left to right, longest for the highest value, each with its text behind it."""
    name_room, text_room, pitch = 120, 240, 26
    highest = max((bar.value for bar in bars if math.isfinite(bar.value)), default=0.0) or 1.0
    parts = []
    for number, bar in enumerate(bars):
        value = bar.value if math.isfinite(bar.value) else 0.0
        length = value / highest * (WIDTH - name_room - text_room)
        top = number * pitch + 4
        colour = COLOURS[number % len(COLOURS)]
        parts.append(_text(bar.name, name_room - 8, top + 13, "end"))
        parts.append(element("rect", x=name_room, y=top, width=length, height=18, fill=colour))
        behind = {"x": name_room + length + 8, "y": top + 13}
        parts.append(element("text", bar.text, text_anchor="start", **behind))
    return _svg(title, WIDTH, pitch * len(bars) + 8, parts)


def matrix_chart(
    title: str, rows: Sequence[str], columns: Sequence[str], counts: Sequence[Sequence[int]]
) -> Markup:
    """Counts as cells, the darker the larger their share of the row."""
    cell, left, top = 34, 24 + 7 * _longest(rows), 24 + 5 * _longest(columns)
    parts = []
    for number, name in enumerate(columns):
        x = left + number * cell + cell / 2
        turned = f"rotate(-45 {x:.6g} {top - 8})"
        parts.append(_text(name, x, top - 8, "start", transform=turned))
    for r, (name, row) in enumerate(zip(rows, counts, strict=True)):
        y = top + r * cell
        parts.append(_text(name, left - 8, y + cell / 2 + 4, "end"))
        whole = sum(row)
        for c, count in enumerate(row):
            x, share = left + c * cell, count / whole if whole else 0.0
            told = _title(f"{name} → {columns[c]}: {count} of {whole}")
            place = {"x": x, "y": y, "width": cell, "height": cell, "fill_opacity": share}
            parts.append(element("rect", told, class_="cell", fill=COLOURS[0], **place))
            if count:
                class_ = "on-dark" if share > 0.6 else None
                middle = (x + cell / 2, y + cell / 2 + 4)
                parts.append(_text(_short_count(count), *middle, class_=class_))
    width = left + cell * len(columns) + 90
    return _svg(title, width, top + cell * len(rows) + 8, parts)


def _frame(
    x: Axis, y: Axis
) -> tuple[list[Markup], Callable[[tuple[float, float]], tuple[float, float]]]:
    """The grid, ticks and labels of two axes, and where a point lies among them."""
    right, bottom = WIDTH - RIGHT, HEIGHT - BOTTOM

    def at(point: tuple[float, float]) -> tuple[float, float]:
        across, up = x.place(point[0]), y.place(point[1])
        return LEFT + across * (right - LEFT), bottom - up * (bottom - TOP)

    parts: list[Markup] = []
    for tick in y.ticks():
        _, height = at((x.low, tick))
        parts.append(element("line", x1=LEFT, x2=right, y1=height, y2=height, class_="grid"))
        parts.append(_text(f"{tick:.6g}", LEFT - 6, height + 4, "end"))
    for tick in x.ticks():
        across, _ = at((tick, y.low))
        parts.append(element("line", x1=across, x2=across, y1=TOP, y2=bottom, class_="grid"))
        parts.append(_text(f"{tick:.6g}", across, bottom + 16))
    parts.append(_text(x.label, (LEFT + right) / 2, HEIGHT - 8))
    middle = (TOP + bottom) / 2
    parts.append(_text(y.label, 13, middle, transform=f"rotate(-90 13 {middle:.6g})"))
    return parts, at


def _longest(names: Sequence[str]) -> int:
    return min(max(map(len, names), default=0), NAME_LENGTH)


def _svg(title: str, width: float, height: float, parts: Sequence[Markup]) -> Markup:
    look = {"class_": "chart", "viewBox": f"0 0 {width:.6g} {height:.6g}"}
    size = {"width": width, "height": height}
    return element("svg", *parts, role="img", aria_label=title, **look, **size)


def _curve(points: Sequence[tuple[float, float]], look: dict[str, str | float]) -> Markup:
    path = " ".join(f"{x:.1f},{y:.1f}" for x, y in points)
    return element("polyline", points=path, fill="none", **look)


def _look(number: int, line: Line) -> dict[str, str | float]:
    if line.strong:
        return {"stroke": "currentColor", "stroke_width": 3}
    return {"stroke": COLOURS[number % len(COLOURS)], "stroke_width": 1.8}


def _unbroken(points: Sequence[tuple[float, float]]) -> Iterator[list[tuple[float, float]]]:
    part: list[tuple[float, float]] = []
    for point in points:
        if math.isfinite(point[1]):
            part.append(point)
        elif part:
            yield part
            part = []
    if part:
        yield part


def _finite(points: Sequence[tuple[float, float]]) -> list[tuple[float, float]]:
    return [point for point in points if math.isfinite(point[1])]


def _text(
    text: str,
    x: float,
    y: float,
    anchor: str = "middle",
    class_: str | None = None,
    transform: str | None = None,
) -> Markup:
    shown = text if len(text) <= NAME_LENGTH else text[: NAME_LENGTH - 1] + "…"
    full = _title(text) if shown != text else joined()
    look = {"text_anchor": anchor, "class_": class_, "transform": transform}
    return element("text", shown, full, x=x, y=y, **look)


def _title(text: str) -> Markup:
    return element("title", text)


def _short_count(count: int) -> str:
    for size, letter in ((10**6, "M"), (10**3, "k")):
        if count >= 10 * size or (size > 1000 and count >= size):
            return f"{count / size:.0f}{letter}"
    return str(count)
