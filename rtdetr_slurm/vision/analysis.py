"""Where a detector goes wrong: thresholds, kinds of error, confusion between classes.

**Threshold.** Of a class, the score from which on precision and recall at an IoU of 0.5 have the
highest harmonic mean (F1). What people would see of a detector is what reaches it: the counts below
are of those detections, and of a class that has no such score, of those from 0.5 on.

**Kinds of error** are those of TIDE (Bolya et al., A General Toolbox for Identifying Object
Detection Errors, ECCV 2020), with its foreground IoU of 0.5 and background IoU of 0.1. A detection
that found no box, and does not lie in a crowd region, is the first of these that it fits:

    localisation    its largest overlap with a box of its class is in 0.1 .. 0.5
    classification  it overlaps a box of another class by 0.5 or more
    duplicate       it overlaps a box of its class by 0.5 or more, which a better one has found
    background      it overlaps no box by more than 0.1
    both            what is left: another class, and 0.1 .. 0.5
    missed          a box that nothing found, and that no error of the first two kinds is about

`dAP50` of a kind is what mAP50 would gain if its errors were mended, and no others, over all
detections: the best localisation or classification error about a box that nothing found finds it,
all other errors of the kind are gone, and missed boxes are not asked for.

**Confusion.** A row for each true class, and a last one for no box; a column for each class found,
and a last one for none. A box that nothing found counts where the best classification error about
it has put it, else as not found; the detections that remain have no box. So a row's sum is the
number of its boxes, and a column's the number of its detections.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from rtdetr_slurm.vision.matching import IOU, NEAR_IOU, Flags, Floats, Ints, Matching

KINDS = ("classification", "localisation", "duplicate", "background", "missed", "both")
CLASSIFICATION, LOCALISATION, DUPLICATE, BACKGROUND, MISSED, BOTH = range(len(KINDS))
RIGHT, IGNORED = -1, -2
"""In the place of a kind of error: the detection found a box; it counts for nothing."""
NO_THRESHOLD = 0.5
"""What a detection must reach to be counted where its class has no threshold."""
RECALLS = np.linspace(0.0, 1.0, 101)
"""Where COCO reads precision."""


@dataclass(frozen=True)
class ClassResult:
    """A class at its threshold; NaN for what does not exist.

    Attributes:
        boxes: to find.
        threshold: NaN where there are no boxes, or none is found at any score.
        precision, recall: in 0..1, at the threshold.
    """

    boxes: int
    threshold: float
    precision: float
    recall: float

    @property
    def f1(self) -> float:
        return 2 * self.precision * self.recall / (self.precision + self.recall)


@dataclass(frozen=True)
class Analysis:
    """What a matching tells.

    Attributes:
        classes: class id to its result, in the order of the ids.
        kind: int64 [D], of each detection of the matching: an index into KINDS, RIGHT or IGNORED.
        counted: bool [D], it reaches its class's threshold, and is not IGNORED.
        missed: bool [N], of each box of the truth: none that is counted found it.
        counts: of each kind, errors among those counted. gains: its dAP50; NaN without boxes.
        confusion: int64 [C + 1, C + 1], true class by found class.
    """

    classes: dict[int, ClassResult]
    kind: Ints
    counted: Flags
    missed: Flags
    counts: tuple[int, ...]
    gains: tuple[float, ...]
    confusion: Ints

    def worst_images(self, matching: Matching, most: int) -> list[int]:
        """The images with the most errors (detections that are wrong, boxes that are not found),
        those with most first; none without errors."""
        wrong = matching.image[self.counted & (self.kind >= 0)]
        images, errors = np.unique(
            np.concatenate([wrong, matching.truth.image[self.missed]]), return_counts=True
        )
        order = np.argsort(-errors, kind="stable")[:most]
        return [int(image) for image in images[order]]


def analyse(matching: Matching) -> Analysis:
    """Thresholds, errors and confusion of a matching."""
    kind = _kinds(matching)
    classes = dict(_classes(matching, kind))
    limits = np.array([_or(r.threshold, NO_THRESHOLD) for r in classes.values()])
    index = np.searchsorted(matching.classes, matching.label)
    counted = (kind != IGNORED) & (matching.score >= limits[index])

    missed = ~_marked(matching.found[counted], len(matching.truth))
    about = _about(matching, kind)
    told = _marked(about[counted], len(matching.truth))
    counts = [int(np.count_nonzero(kind[counted] == one)) for one in range(len(KINDS))]
    counts[MISSED] = int(np.count_nonzero(missed & ~told))
    return Analysis(
        classes=classes,
        kind=kind,
        counted=counted,
        missed=missed,
        counts=tuple(counts),
        gains=_gains(matching, kind, about),
        confusion=_confusion(matching, kind, counted, missed),
    )


def class_ap50(matching: Matching) -> dict[int, float]:
    """AP at an IoU of 0.5 of each class that has boxes, as pycocotools has it."""
    keep = ~matching.ignored
    boxes = np.bincount(matching.truth.label, minlength=_size(matching))
    return _ap50(matching, matching.label[keep], matching.found[keep] >= 0, boxes)


def _kinds(m: Matching) -> Ints:
    kind = np.full(len(m.label), BOTH)
    kind[np.maximum(m.own_iou, m.other_iou) <= NEAR_IOU] = BACKGROUND
    kind[m.own_iou >= IOU] = DUPLICATE
    kind[m.other_iou >= IOU] = CLASSIFICATION
    kind[(m.own_iou >= NEAR_IOU) & (m.own_iou < IOU)] = LOCALISATION
    kind[m.ignored] = IGNORED
    kind[m.found >= 0] = RIGHT
    return kind


def _about(m: Matching, kind: Ints) -> Ints:
    """The box that an error of localisation or classification is about, -1 for the others."""
    about = np.where(kind == LOCALISATION, m.own, -1)
    return np.where(kind == CLASSIFICATION, m.other, about)


def _classes(m: Matching, kind: Ints) -> Iterator[tuple[int, ClassResult]]:
    boxes = np.bincount(m.truth.label, minlength=_size(m))
    keep = kind != IGNORED
    label, score, right = m.label[keep], m.score[keep], kind[keep] == RIGHT
    for one, rows in _of_each_class(m.classes, label):
        yield one, _class_result(score[rows], right[rows], int(boxes[one]))


def _class_result(score: Floats, right: Flags, boxes: int) -> ClassResult:
    """Of a class's detections, best first. The threshold lies half-way to the next lower score, so
    that it means the same after rounding."""
    found = np.cumsum(right)
    if not boxes or not right.any():
        return ClassResult(boxes, math.nan, math.nan, math.nan)
    shown = np.arange(1, len(score) + 1)
    f1 = 2 * found / (shown + boxes)
    f1[:-1][score[:-1] == score[1:]] = 0  # no threshold is between equal scores
    best = int(np.argmax(f1))
    below = score[best + 1] if best + 1 < len(score) else score[best]
    threshold = float(score[best] + below) / 2
    hits = int(found[best])
    return ClassResult(boxes, threshold, hits / (best + 1), hits / boxes)


def _gains(m: Matching, kind: Ints, about: Ints) -> tuple[float, ...]:
    """What mending each kind of error, and no other, adds to mAP50."""
    boxes = np.bincount(m.truth.label, minlength=_size(m))
    if not boxes.any():
        return (math.nan,) * len(KINDS)
    unfound = ~_marked(m.found, len(m.truth))
    told = _marked(about, len(m.truth))

    def mean_ap(label: Ints, right: Flags, keep: Flags, boxes: Ints) -> float:
        return float(np.mean([*_ap50(m, label[keep], right[keep], boxes).values()] or [1.0]))

    right = kind == RIGHT
    best = _first_about(about, unfound)
    before = float(np.mean([*class_ap50(m).values()]))
    gains = []
    for one in range(len(KINDS)):
        if one == MISSED:
            asked = boxes - np.bincount(m.truth.label[unfound & ~told], minlength=len(boxes))
            after = mean_ap(m.label, right, kind != IGNORED, asked)
        else:
            wrong = kind == one
            mended = wrong & best
            label = m.label.copy()
            label[mended] = m.truth.label[about[mended]]
            keep = (kind != IGNORED) & ~wrong | mended
            after = mean_ap(label, right | mended, keep, boxes)
        gains.append(max(after - before, 0.0))
    return tuple(gains)


def _first_about(about: Ints, wanted: Flags) -> Flags:
    """Of the detections that are about the same box, the best; only for boxes that are wanted."""
    candidates = np.flatnonzero(about >= 0)
    candidates = candidates[wanted[about[candidates]]]
    _, first = np.unique(about[candidates], return_index=True)
    return _marked(candidates[first], len(about))


def _confusion(m: Matching, kind: Ints, counted: Flags, missed: Flags) -> Ints:
    none = len(m.classes)
    found_class = np.searchsorted(m.classes, m.label)
    true_class = np.searchsorted(m.classes, m.truth.label)
    confused = counted & (kind == CLASSIFICATION)
    first = _first_about(np.where(confused, m.other, -1), missed)
    right, rest = counted & (kind == RIGHT), counted & (kind >= 0) & ~first
    lost = missed & ~_marked(m.other[first], len(m.truth))
    cells = [
        (true_class[m.found[right]], found_class[right]),
        (true_class[m.other[first]], found_class[first]),
        (true_class[lost], np.full(np.count_nonzero(lost), none)),
        (np.full(np.count_nonzero(rest), none), found_class[rest]),
    ]
    rows, columns = (np.concatenate(parts) for parts in zip(*cells, strict=True))
    width = none + 1
    return np.bincount(rows * width + columns, minlength=width**2).reshape(width, width)


def _ap50(m: Matching, label: Ints, right: Flags, boxes: Ints) -> dict[int, float]:
    """AP of each class with boxes, of detections that are sorted by score.

    Args:
        boxes: how many there are, by class id.
    """
    return {
        one: average_precision(right[rows], int(boxes[one]))
        for one, rows in _of_each_class(m.classes, label)
        if boxes[one]
    }


def average_precision(right: Flags, boxes: int) -> float:
    """The mean over RECALLS of the highest precision at that recall or a higher one.

    Args:
        right: of a class's detections, best first, those that found a box.
        boxes: to find, at least one.
    """
    found = np.cumsum(right)
    precision = found / np.arange(1, len(right) + 1)
    highest = np.maximum.accumulate(precision[::-1])[::-1]
    place = np.searchsorted(found / boxes, RECALLS)
    return float(np.append(highest, 0.0)[place].mean())


def _of_each_class(classes: tuple[int, ...], label: Ints) -> Iterator[tuple[int, Ints]]:
    """Where the detections of each class are, in their order."""
    order = np.argsort(label, kind="stable")
    limits = np.searchsorted(label[order], [*classes, np.inf])
    for one, begin, end in zip(classes, limits[:-1], limits[1:], strict=True):
        yield one, order[begin:end]


def _marked(positions: Ints, count: int) -> Flags:
    """True at some positions of `count`; -1 is none."""
    marks = np.zeros(count, bool)
    marks[positions[positions >= 0]] = True
    return marks


def _size(m: Matching) -> int:
    return max(m.classes, default=-1) + 1


def _or(value: float, other: float) -> float:
    return other if math.isnan(value) else value
