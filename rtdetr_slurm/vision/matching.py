"""Which detection found which box: one matching that every count, curve and error comes from.

It is COCO's at an IoU of 0.5: in each image and class the detections take their turn by score, the
100 best of them, and each has the box that it overlaps most of those that none before it has. One
that has none and lies in a crowd region of its class counts for nothing.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from rtdetr_slurm.vision.table import Table

IOU = 0.5
"""From this overlap on a detection has found a box."""
NEAR_IOU = 0.1
"""Below this overlap a detection has nothing to do with a box (TIDE's background threshold)."""
MAX_PER_CLASS = 100
"""Detections of an image and class that are looked at, the best ones."""

_PAIRS = 2_000_000
"""Pairs of a detection and a box that are compared at a time."""

Ints = NDArray[np.int64]
Floats = NDArray[np.float64]
Flags = NDArray[np.bool_]


@dataclass(frozen=True)
class Truth:
    """N boxes to find, in the order of the table.

    Attributes:
        image, label: int64 [N].
        boxes: float64 [N, 4], left, top, width, height in pixels.
    """

    image: Ints
    label: Ints
    boxes: Floats

    def __len__(self) -> int:
        return len(self.label)


@dataclass(frozen=True)
class Matching:
    """D detections, best first, and what each has to do with the truth.

    Attributes:
        classes: ids of those that are scored, sorted.
        truth: the boxes to find; crowd regions are none.
        image, label: int64 [D]. score: float64 [D].
        boxes: float64 [D, 4], left, top, width, height in pixels.
        found: int64 [D], the box that a detection has found, -1 for none.
        ignored: bool [D], found nothing and lies in a crowd region.
        own, other: int64 [D], the box of its own class, and of other classes, that it overlaps
            most, -1 where that is less than NEAR_IOU. own_iou, other_iou: float64 [D], how much.
    """

    classes: tuple[int, ...]
    truth: Truth
    image: Ints
    label: Ints
    score: Floats
    boxes: Floats
    found: Ints
    ignored: Flags
    own: Ints
    own_iou: Floats
    other: Ints
    other_iou: Floats


def match_detections(
    table: Table, detections: Floats, class_ids: Sequence[int] | None = None
) -> Matching:
    """Match detections with the boxes of all images of `table`.

    Args:
        detections: [D, 7]: image position, left, top, width, height (pixels), score, label.
        class_ids: only these classes exist; None means all of the table's.
    """
    classes = sorted(table.classes if class_ids is None else set(class_ids))
    found = _best_of_each_class(detections[np.isin(detections[:, 6], classes)])
    image, label = found[:, 0].astype(np.int64), found[:, 6].astype(np.int64)
    image_of_box = np.repeat(np.arange(len(table)), np.diff(table.starts))
    scored = np.isin(table.labels, classes)
    truth, crowds = (
        Truth(image_of_box[chosen], table.labels[chosen], table.boxes[chosen])
        for chosen in (scored & ~table.crowds, scored & table.crowds)
    )

    d, t, iou = _overlaps(image, found[:, 1:5], truth, len(table))
    same = label[d] == truth.label[t]
    own, own_iou = _most_overlapped(d[same], t[same], iou[same], len(found))
    other, other_iou = _most_overlapped(d[~same], t[~same], iou[~same], len(found))
    fits = same & (iou >= IOU)
    matched = _in_turn(d[fits], t[fits], iou[fits], len(found))

    d, t, iou = _overlaps(image, found[:, 1:5], crowds, len(table), crowd=True)
    in_crowd = np.zeros(len(found), bool)
    in_crowd[d[(label[d] == crowds.label[t]) & (iou >= IOU)]] = True
    return Matching(
        classes=tuple(classes),
        truth=truth,
        image=image,
        label=label,
        score=found[:, 5],
        boxes=found[:, 1:5],
        found=matched,
        ignored=in_crowd & (matched < 0),
        own=own,
        own_iou=own_iou,
        other=other,
        other_iou=other_iou,
    )


def _best_of_each_class(detections: Floats) -> Floats:
    """MAX_PER_CLASS of each image and class; best first, equal ones in the images' order."""
    detections = detections[np.lexsort((detections[:, 0], -detections[:, 5]))]
    group = np.lexsort((detections[:, 6], detections[:, 0]))  # stable: best first in each group
    pairs = detections[:, [0, 6]][group]
    begins = np.flatnonzero(np.any(np.diff(pairs, axis=0, prepend=np.nan) != 0, axis=1))
    sizes = np.diff(np.append(begins, len(pairs)))
    place = np.arange(len(pairs)) - np.repeat(begins, sizes)
    return detections[np.sort(group[place < MAX_PER_CLASS])]


def _overlaps(
    image: Ints, boxes: Floats, truth: Truth, images: int, *, crowd: bool = False
) -> tuple[Ints, Ints, Floats]:
    """Pairs of a detection and a box of the same image that overlap by NEAR_IOU or more.

    Args:
        crowd: a detection's share that lies in the region counts instead of the IoU.

    Returns:
        Detection, box and overlap of each pair, each [P].
    """
    starts = np.searchsorted(truth.image, np.arange(images + 1))
    counts = np.diff(starts)[image]
    parts = [(np.empty(0, np.int64), np.empty(0, np.int64), np.empty(0))]
    for few in _portions(counts):
        d = few.start + np.repeat(np.arange(few.stop - few.start), counts[few])
        ends = np.cumsum(counts[few])
        t = np.arange(len(d)) + np.repeat(starts[image[few]] - ends + counts[few], counts[few])
        iou = _iou(boxes[d], truth.boxes[t], crowd=crowd)
        near = iou >= NEAR_IOU
        parts.append((d[near], t[near], iou[near]))
    detection, box, overlap = (np.concatenate(column) for column in zip(*parts, strict=True))
    return detection, box, overlap


def _portions(counts: Ints) -> Iterator[slice]:
    """Detections with about _PAIRS pairs in all, or one that has more."""
    total = np.cumsum(counts)
    begin, done = 0, 0
    while begin < len(counts):
        end = max(int(np.searchsorted(total, done + _PAIRS, side="right")), begin + 1)
        yield slice(begin, end)
        begin, done = end, int(total[end - 1])


def _iou(a: Floats, b: Floats, *, crowd: bool) -> Floats:
    """Overlap of pairs of boxes [P, 4]; of a crowd the share of `a` that lies in `b`."""
    with np.errstate(all="ignore"):  # of a detector that is broken
        corner = np.minimum(a[:, :2] + a[:, 2:], b[:, :2] + b[:, 2:])
        inside = (corner - np.maximum(a[:, :2], b[:, :2])).clip(min=0).prod(axis=1)
        area_a, area_b = a[:, 2:].prod(axis=1), b[:, 2:].prod(axis=1)
        whole = area_a if crowd else area_a + area_b - inside
        overlap = np.zeros(len(a))
        np.divide(inside, whole, out=overlap, where=inside > 0)
        return overlap


def _most_overlapped(d: Ints, t: Ints, iou: Floats, count: int) -> tuple[Ints, Floats]:
    """Of each of `count` detections the box with the highest overlap, -1 for none, and that."""
    order = np.argsort(iou, kind="stable")  # of what is written to one place, the last stays
    box, overlap = np.full(count, -1), np.zeros(count)
    box[d[order]], overlap[d[order]] = t[order], iou[order]
    return box, overlap


def _in_turn(d: Ints, t: Ints, iou: Floats, count: int) -> Ints:
    """The box that each of `count` detections gets, -1 for none; of equal overlaps the later one,
    as in pycocotools."""
    order = np.lexsort((-t, -iou, d))
    found, taken = [-1] * count, set[int]()
    for detection, box in zip(d[order].tolist(), t[order].tolist(), strict=True):
        if found[detection] < 0 and box not in taken:
            found[detection] = box
            taken.add(box)
    return np.array(found, np.int64)
