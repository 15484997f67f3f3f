"""Thresholds, kinds of error and confusion, on boxes made by hand."""

from __future__ import annotations

import math

import numpy as np
import pytest
from table_support import detections_of, table_of

from rtdetr_slurm.vision.analysis import KINDS, Analysis, analyse, average_precision
from rtdetr_slurm.vision.matching import Matching, match_detections
from rtdetr_slurm.vision.table import Table

CAT, DOG = 1, 2
HERE, ALSO_HERE, THERE = (0, 0, 100, 100), (10, 0, 100, 100), (400, 0, 100, 100)
BESIDE = (60, 0, 100, 100)
"""Overlaps HERE by a quarter."""


def analysed(table: Table, *found: tuple, class_ids: list[int] | None = None) -> Analysis:
    return analyse(match_detections(table, detections_of(*found), class_ids))


def counted(analysis: Analysis) -> dict[str, int]:
    return {kind: n for kind, n in zip(KINDS, analysis.counts, strict=True) if n}


def gained(analysis: Analysis) -> dict[str, float]:
    return {kind: gain for kind, gain in zip(KINDS, analysis.gains, strict=True) if gain}


class TestKindsOfError:
    @pytest.mark.parametrize(
        ("found", "expected"),
        [
            ([(0, CAT, HERE, 0.9)], {}),
            ([], {"missed": 1}),
            ([(0, DOG, HERE, 0.9)], {"classification": 1}),
            ([(0, CAT, BESIDE, 0.9)], {"localisation": 1}),
            ([(0, CAT, HERE, 0.9), (0, CAT, ALSO_HERE, 0.9)], {"duplicate": 1}),
            ([(0, CAT, THERE, 0.9)], {"background": 1, "missed": 1}),
            ([(1, CAT, HERE, 0.9)], {"background": 1, "missed": 1}),  # in another image
            ([(0, DOG, BESIDE, 0.9)], {"both": 1, "missed": 1}),
            # Of a box that is found, too: the detection is wrong all the same.
            ([(0, CAT, HERE, 0.9), (0, DOG, HERE, 0.9)], {"classification": 1}),
            ([(0, CAT, HERE, 0.9), (0, CAT, BESIDE, 0.9)], {"localisation": 1}),
        ],
    )
    def test_each(self, found: list[tuple], expected: dict[str, int]) -> None:
        """Of one box, a cat, at thresholds that leave all of it."""
        analysis = analysed(table_of((0, CAT, HERE)), *found)
        assert counted(analysis) == expected

    def test_the_better_detection_finds_the_box(self) -> None:
        """Also where the other one overlaps it more; in the order of the scores, as in COCO."""
        table = table_of((0, CAT, HERE), (0, CAT, THERE))
        found = [(0, CAT, HERE, 0.8), (0, CAT, ALSO_HERE, 0.9), (0, CAT, THERE, 0.7)]
        matching = match_detections(table, detections_of(*found))
        assert matching.score.tolist() == [0.9, 0.8, 0.7]
        assert matching.found.tolist() == [0, -1, 1]

    def test_below_the_threshold_nothing_counts(self) -> None:
        """The weak ones are no error, and a box that only they find is missed."""
        table = table_of(*((image, CAT, HERE) for image in range(3)))
        strong = [(0, CAT, HERE, 0.9), (1, CAT, HERE, 0.9)]
        noise = [(0, CAT, (300 + 10 * n, 200, 9, 9), 0.3) for n in range(5)]
        analysis = analysed(table, *strong, *noise, (2, CAT, HERE, 0.2))
        assert analysis.classes[CAT].threshold == pytest.approx(0.6)
        assert counted(analysis) == {"missed": 1}
        assert gained(analysis)["background"] > 0  # of all detections

    def test_crowds(self) -> None:
        """What lies in a crowd of its class counts for nothing; a crowd need not be found."""
        table = table_of((0, CAT, THERE), crowds=[(0, CAT, HERE)])
        inside = [(0, CAT, (10 * n, 10, 30, 30), 0.9) for n in range(4)]
        analysis = analysed(table, *inside, (0, CAT, THERE, 0.8))
        assert counted(analysis) == {}
        assert analysis.classes[CAT].boxes == 1
        assert analysis.classes[CAT].precision == 1
        assert analysis.confusion.sum() == 1
        assert counted(analysed(table, (0, DOG, HERE, 0.9))) == {"background": 1, "missed": 1}

    def test_classes_that_do_not_count_do_not_exist(self) -> None:
        table = table_of((0, CAT, HERE), (0, DOG, THERE))
        found = [(0, DOG, HERE, 0.9), (0, DOG, THERE, 0.9), (0, CAT, HERE, 0.9)]
        analysis = analysed(table, *found, class_ids=[DOG])
        assert [*analysis.classes] == [DOG]
        assert counted(analysis) == {"background": 1}
        assert analysis.confusion.tolist() == [[1, 0], [1, 0]]


class TestGains:
    @pytest.mark.parametrize(
        ("found", "expected"),
        [
            ((0, DOG, HERE, 0.9), {"classification": 1}),
            ((0, CAT, BESIDE, 0.9), {"localisation": 1}),
            ((0, DOG, BESIDE, 0.9), {"missed": 1}),
        ],
    )
    def test_all_of_it(self, found: tuple, expected: dict[str, float]) -> None:
        assert gained(analysed(table_of((0, CAT, HERE)), found)) == expected

    @pytest.mark.parametrize(
        ("kind", "between"),
        [
            ("duplicate", (0, CAT, ALSO_HERE, 0.8)),
            ("background", (1, CAT, HERE, 0.8)),
            ("both", (0, CAT, (460, 100, 100, 100), 0.8)),
        ],
    )
    def test_of_what_is_only_in_the_way(self, kind: str, between: tuple) -> None:
        """Two of two boxes are found, with a wrong one between: precision is 2/3 beyond recall
        0.5."""
        table = table_of((0, CAT, HERE), (0, CAT, THERE), (0, DOG, (440, 60, 100, 100)))
        found = [(0, CAT, HERE, 0.9), between, (0, CAT, THERE, 0.7)]
        dog = (0, DOG, (440, 60, 100, 100), 0.9)
        analysis = analysed(table, *found, dog)
        assert gained(analysis) == {kind: pytest.approx(50 / 101 / 3 / 2)}  # of two classes

    def test_missed(self) -> None:
        table = table_of((0, CAT, HERE), (0, CAT, THERE))
        assert gained(analysed(table, (0, CAT, HERE, 0.9))) == {"missed": pytest.approx(50 / 101)}

    def test_one_detection_finds_a_box(self) -> None:
        """Of several that are wrong about it the best; the others go."""
        table = table_of((0, CAT, HERE), (1, CAT, HERE))
        wrong = [(0, DOG, HERE, 0.9), (0, DOG, ALSO_HERE, 0.8)]
        assert gained(analysed(table, *wrong, (1, CAT, HERE, 0.7))) == {
            "classification": pytest.approx(50 / 101)
        }

    def test_the_best_error_about_a_box_finds_it(self) -> None:
        """Of whichever kind it is: mending the others finds nothing, as in TIDE."""
        table = table_of((0, CAT, HERE), (1, CAT, HERE))
        wrong = [(0, CAT, BESIDE, 0.9), (0, DOG, HERE, 0.8)]
        assert gained(analysed(table, *wrong, (1, CAT, HERE, 0.7))) == {
            "localisation": pytest.approx(1 - 51 / 101 / 2)
        }


class TestThresholds:
    def test_half_way_to_the_next(self) -> None:
        table = table_of((0, CAT, HERE), (1, CAT, HERE))
        found = [(0, CAT, HERE, 0.8), (1, CAT, HERE, 0.6), (0, CAT, THERE, 0.2)]
        result = analysed(table, *found).classes[CAT]
        assert result.threshold == pytest.approx(0.4)
        assert (result.precision, result.recall, result.f1) == (1, 1, 1)

    def test_not_between_equal_scores(self) -> None:
        table = table_of((0, CAT, HERE))
        found = [(0, CAT, HERE, 0.5), (0, CAT, THERE, 0.5), (1, CAT, THERE, 0.4)]
        result = analysed(table, *found).classes[CAT]
        assert result.threshold == pytest.approx(0.45)
        assert (result.precision, result.recall) == (0.5, 1)

    def test_none(self) -> None:
        """Of a class without boxes, and of one that nothing finds; then 0.5 counts."""
        table = table_of((0, CAT, HERE))
        found = [(0, CAT, THERE, 0.6), (0, CAT, THERE, 0.4), (0, DOG, THERE, 0.6)]
        analysis = analysed(table, *found)
        assert all(math.isnan(one.threshold) for one in analysis.classes.values())
        assert math.isnan(analysis.classes[CAT].f1)
        assert counted(analysis) == {"background": 2, "missed": 1}


class TestConfusion:
    def test_rows_are_boxes_and_columns_are_detections(self) -> None:
        table = table_of(
            (0, CAT, HERE), (0, CAT, THERE), (1, CAT, HERE), (1, DOG, THERE), (2, DOG, HERE)
        )
        found = [
            (0, CAT, HERE, 0.9),
            (0, CAT, ALSO_HERE, 0.9),  # once more
            (0, DOG, THERE, 0.9),  # a cat that is called a dog
            (0, DOG, THERE, 0.9),  # and once more
            (1, DOG, THERE, 0.9),
            (2, CAT, THERE, 0.9),  # nothing there
        ]
        assert analysed(table, *found).confusion.tolist() == [[1, 1, 1], [0, 1, 1], [2, 1, 0]]

    def test_worst_images(self) -> None:
        table = table_of((0, CAT, HERE), (1, CAT, HERE), (2, CAT, HERE))
        found = [(0, CAT, HERE, 0.9), (1, DOG, THERE, 0.9), (1, DOG, BESIDE, 0.9)]
        matching = match_detections(table, detections_of(*found))
        analysis = analyse(matching)
        assert analysis.worst_images(matching, 5) == [1, 2]
        assert analysis.worst_images(matching, 1) == [1]


class TestNothing:
    def test_no_detections(self) -> None:
        analysis = analysed(table_of((0, CAT, HERE)))
        assert counted(analysis) == {"missed": 1}
        assert gained(analysis) == {"missed": 1}
        assert analysis.confusion.tolist() == [[0, 0, 1], [0, 0, 0], [0, 0, 0]]

    def test_no_boxes(self) -> None:
        analysis = analysed(table_of(), (0, CAT, HERE, 0.9))
        assert counted(analysis) == {"background": 1}
        assert np.isnan(analysis.gains).all()

    def test_neither(self) -> None:
        assert counted(analysed(table_of())) == {}
        assert analysed(table_of(classes={}), (0, CAT, HERE, 0.9)).confusion.tolist() == [[0]]

    def test_boxes_that_are_no_numbers(self) -> None:
        """Of a detector that is broken: they overlap nothing."""
        nan, inf = math.nan, math.inf
        odd = [(0, CAT, (nan, 0, 5, 5), 0.9), (0, CAT, (0, 0, inf, inf), 0.9)]
        odd += [(0, CAT, (20, 20, -5, -5), 0.9), (0, CAT, (-inf, 0, inf, 5), 0.9)]
        matching: Matching = match_detections(table_of((0, CAT, HERE)), detections_of(*odd))
        assert matching.found.tolist() == [-1] * 4
        assert counted(analyse(matching)) == {"background": 4, "missed": 1}

    def test_average_precision_of_nothing(self) -> None:
        assert average_precision(np.zeros(0, bool), 3) == 0
