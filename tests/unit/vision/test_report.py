"""report.html as a file: what is in it, what is not, and how large it gets. What a browser makes of
it is tested in tests/browser."""

from __future__ import annotations

import base64
import io
import math
import re
from html.parser import HTMLParser

import numpy as np
import pytest
from PIL import Image
from table_support import break_image, detections_of, table, table_of  # noqa: F401

from rtdetr_slurm.charts import Axis, Line, line_chart, matrix_chart, spanning
from rtdetr_slurm.markup import Markup, element, escaped
from rtdetr_slurm.vision.assessment import Assessment, assess
from rtdetr_slurm.vision.pictures import BOXES, SIDE, worst_pictures
from rtdetr_slurm.vision.report import (
    CURVE_CLASSES,
    MATRIX_CLASSES,
    TABLE_CLASSES,
    Report,
    render_report,
)
from rtdetr_slurm.vision.table import Table

# ruff: noqa: F811  (pytest fixtures are arguments of the name they are imported by)

HERE, THERE = (0, 0, 40, 40), (50, 0, 40, 40)
HOSTILE = '</title></svg><script src="http://x">1</script>"\'&\x1b\ud800'


class Page(HTMLParser):
    """What an HTML file is made of."""

    def __init__(self, file: bytes) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.attributes: list[tuple[str, str | None]] = []
        self.text: list[str] = []
        self.feed(file.decode())

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.attributes += attributes

    def handle_data(self, data: str) -> None:
        self.text.append(data)

    def values(self, name: str) -> list[str]:
        return [value or "" for key, value in self.attributes if key == name]


def page_of(assessment: Assessment | None, **others: object) -> Page:
    return Page(render_report(Report("a title", [], assessment, **others)))


@pytest.fixture
def mistaken(table: Table) -> Assessment:
    """All found but for the first of each image, which is taken for another thing."""
    starts = {int(start) for start in table.starts[:-1]}
    where = np.repeat(np.arange(len(table)), np.diff(table.starts))
    rows = [
        (int(image), int(label) % 3 + 1 if n in starts else int(label), tuple(box), 0.9)
        for n, (image, label, box) in enumerate(zip(where, table.labels, table.boxes, strict=True))
    ]
    return assess(table, detections_of(*rows))


class TestMarkup:
    def test_what_is_no_markup_is_escaped(self) -> None:
        made = element("td", "<b>", element("i", 'a"'), title='"<', class_="x", hidden=None)
        assert made == '<td title="&quot;&lt;" class="x">&lt;b&gt;<i>a&quot;</i></td>'
        assert element("rect", stroke_width=1 / 3, width=2) == (
            '<rect stroke-width="0.333333" width="2"></rect>'
        )
        assert escaped(HOSTILE).endswith("&quot;&#x27;&amp;\ufffd\ufffd")
        assert isinstance(made, Markup)


class TestCharts:
    @pytest.mark.parametrize(
        ("low", "high", "ticks"),
        [
            (0, 1, [0, 0.2, 0.4, 0.6, 0.8, 1]),
            (1, 12, [2, 4, 6, 8, 10, 12]),
            (0, 0.031, [0, 0.01, 0.02, 0.03]),
            (3, 4, [3, 3.2, 3.4, 3.6, 3.8, 4]),
        ],
    )
    def test_ticks(self, low: float, high: float, ticks: list[float]) -> None:
        assert Axis("", low, high).ticks() == pytest.approx(ticks)

    def test_no_ticks_between_epochs(self) -> None:
        assert Axis("", 1, 3, whole=True).ticks() == [1, 2, 3]

    def test_an_axis_has_room_for_all(self) -> None:
        assert spanning("", [3, math.nan, 5]) == Axis("", 3, 5)
        assert spanning("", [3], low=0) == Axis("", 0, 3)
        assert spanning("", [2, 2]) == Axis("", 2, 3)
        assert spanning("", [math.nan]) == Axis("", 0, 1)

    def test_a_value_that_does_not_exist_interrupts_its_line(self) -> None:
        line = Line("a", [(0, 1.0), (1, math.nan), (2, 1.0), (3, 0.5)])
        svg = line_chart("t", [line], Axis("x", 0, 3), Axis("y", 0, 1))
        assert "nan" not in svg
        assert svg.count("<polyline") == 3  # two parts, and the legend
        assert svg.count("<circle") == 3

    def test_matrix(self) -> None:
        svg = matrix_chart("t", ["a", HOSTILE], ["c", "d"], [[1, 0], [30_000, 10_000]])
        assert svg.count("<rect") == 4
        assert f"{escaped(HOSTILE)} → c: 30000 of 40000" in svg
        assert ">30k<" in svg


class TestPictures:
    def test_worst(self, mistaken: Assessment) -> None:
        table = mistaken.table
        break_image(table, 0)
        pictures = worst_pictures(mistaken)
        assert len(pictures) == len(table) - 1
        assert [one.errors for one in pictures] == [2] * len(pictures)  # not found, and wrong
        for one in pictures:
            with Image.open(io.BytesIO(one.jpeg)) as image:
                assert image.size == (one.width, one.height) == (96, 96)
        sorts = [shown.sort for shown in pictures[0].boxes]
        assert sorts.count("missed") == sorts.count("wrong") == 1
        assert sorts.count("truth") == sorts.count("right")
        texts = [shown.text for shown in pictures[0].boxes if shown.sort == "wrong"]
        assert re.fullmatch(r"(circle|square|triangle) 0\.90, classification", texts[0])

    def test_large_images_are_shrunk(self, table: Table) -> None:
        Image.new("RGB", (4 * SIDE, SIDE)).save(table.path(2))
        table.sizes[2] = 0
        found = [(2, 1, (0, 0, 400, 40), 0.9)] * (BOXES + 50)
        found += [(2, 1, (math.nan, 0, 1, 1), 0.9)]
        [picture] = worst_pictures(assess(table, detections_of(*found)), most=1)
        assert (picture.width, picture.height) == (SIDE, SIDE // 4)
        wrong = [shown for shown in picture.boxes if shown.sort == "wrong"]
        assert len(wrong) == BOXES
        assert wrong[0].box == (0, 0, 100, 10)


class TestReport:
    def test_stands_alone(self, mistaken: Assessment) -> None:
        """Nothing is loaded and nothing runs, whatever classes are called."""
        mistaken.table.classes[1] = HOSTILE
        again = assess(mistaken.table, detections_of((0, 1, HERE, 0.9)))
        history = {"train_loss": {0: 3.0, 1: 2.0}, "val_mAP": {1: 0.5}}
        page = page_of(again, pictures=worst_pictures(again), history=history)
        assert {"script", "link", "iframe", "a"}.isdisjoint(page.tags)
        assert all(source.startswith("data:image/jpeg;base64,") for source in page.values("src"))
        assert len(page.values("src")) == len(mistaken.table)
        assert page.values("href") == []
        assert not [key for key, _ in page.attributes if key.startswith("on")]
        assert any('<script src="http://x">' in text for text in page.text)
        assert "default-src 'none'" in page.values("content")[0]
        assert page.tags.count("svg") >= 2 + 4 + len(mistaken.table)
        Image.open(io.BytesIO(base64.b64decode(page.values("src")[0].partition(",")[2]))).load()

    def test_many_classes(self) -> None:
        """The page says how many there are of how many."""
        count = TABLE_CLASSES + 50
        names = {n: f"class {n}" for n in range(count)}
        boxes = [(0, n, HERE) for n in range(count)]
        found = [(0, n, THERE, 0.9) for n in range(count)]
        page = page_of(assess(table_of(*boxes, classes=names), detections_of(*found)))
        text = " ".join(page.text)
        for limit in (TABLE_CLASSES, CURVE_CLASSES, MATRIX_CLASSES):
            assert f"Of {count} classes {limit} are shown" in text
        assert page.tags.count("tr") == TABLE_CLASSES + 1 + 12
        assert page.tags.count("polyline") == 2 * (CURVE_CLASSES + 1)

    @pytest.mark.parametrize("boxes", [[], [(0, 1, HERE)]])
    @pytest.mark.parametrize("found", [[], [(0, 1, THERE, 0.9)]])
    def test_next_to_nothing(self, boxes: list, found: list) -> None:
        page = page_of(assess(table_of(*boxes), detections_of(*found)))
        assert ("There are no boxes to find." in page.text) == (not boxes)
        assert "nan" not in "".join(value or "" for _, value in page.attributes)

    def test_a_training_without_validation(self) -> None:
        page = page_of(None, history={"train_loss": {0: 3.0, 1: math.nan}})
        assert page.tags.count("svg") == 1
        assert "train_loss" in page.text
