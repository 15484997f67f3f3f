"""An annotation file in numbers, as tables and histograms show them. Standard library only."""

from __future__ import annotations

import math
from collections import Counter, defaultdict
from collections.abc import Iterator
from dataclasses import dataclass

from rtdetr_slurm.data.coco import CocoAnnotations

SMALL, MEDIUM = 32, 96
"""Sides of squares in pixels: below the first an object is small, below the second medium, as
COCO's scores count them."""


@dataclass(frozen=True)
class ClassNumbers:
    """A class of an annotation file; all but `boxes` and `images` are of single objects.

    Attributes:
        images: that have at least one of its boxes.
        small, medium, large: boxes by COCO's sizes.
        width, height: of the middle box by width, and by height, in pixels; 0 without any.
    """

    id: int
    name: str
    boxes: int
    images: int
    small: int
    medium: int
    large: int
    width: float
    height: float


@dataclass(frozen=True)
class Numbers:
    """An annotation file.

    Attributes:
        empty: images without a box.
        crowds: boxes that are crowd regions.
        per_image: boxes of each image, in the file's order.
        sides: roots of the areas of single objects, in pixels.
        ratios: widths of single objects by their heights.
        classes: in the order of their ids.
    """

    images: int
    boxes: int
    empty: int
    crowds: int
    per_image: list[int]
    sides: list[float]
    ratios: list[float]
    classes: list[ClassNumbers]

    @property
    def sizes(self) -> tuple[int, int, int]:
        """Small, medium and large objects."""
        return (
            sum(one.small for one in self.classes),
            sum(one.medium for one in self.classes),
            sum(one.large for one in self.classes),
        )


def count(annotations: CocoAnnotations) -> Numbers:
    """Go through all boxes once."""
    per_image = Counter(annotations.image_index)
    boxes_of = Counter(annotations.category_ids)
    images_of: dict[int, set[int]] = defaultdict(set)
    for image, category in zip(annotations.image_index, annotations.category_ids, strict=True):
        images_of[category].add(image)
    single: dict[int, list[tuple[float, float]]] = defaultdict(list)
    for category, width, height in _single(annotations):
        single[category].append((width, height))
    every = [box for boxes in single.values() for box in boxes]
    return Numbers(
        images=annotations.num_images,
        boxes=annotations.num_boxes,
        empty=annotations.num_images - len(per_image),
        crowds=sum(annotations.crowds),
        per_image=[per_image[image] for image in range(annotations.num_images)],
        sides=[math.sqrt(width * height) for width, height in every],
        ratios=[width / height for width, height in every],
        classes=[
            _of_class(id_, name, boxes_of[id_], len(images_of[id_]), single[id_])
            for id_, name in sorted(annotations.categories.items())
        ],
    )


def _of_class(
    id_: int, name: str, boxes: int, images: int, single: list[tuple[float, float]]
) -> ClassNumbers:
    areas = [width * height for width, height in single]
    small = sum(area < SMALL**2 for area in areas)
    large = sum(area >= MEDIUM**2 for area in areas)
    widths, heights = sorted(width for width, _ in single), sorted(height for _, height in single)
    return ClassNumbers(
        id=id_,
        name=name,
        boxes=boxes,
        images=images,
        small=small,
        medium=len(areas) - small - large,
        large=large,
        width=widths[len(widths) // 2] if widths else 0.0,
        height=heights[len(heights) // 2] if heights else 0.0,
    )


def _single(annotations: CocoAnnotations) -> Iterator[tuple[int, float, float]]:
    """Category, width and height of each single object that has an area."""
    widths, heights = annotations.boxes[2::4], annotations.boxes[3::4]
    rows = zip(annotations.category_ids, widths, heights, annotations.crowds, strict=True)
    return (
        (category, width, height)
        for category, width, height, crowd in rows
        if not crowd and width > 0 and height > 0
    )
