"""A data set in numbers, for a spec to begin with. Standard library only."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Mapping
from pathlib import Path

from rtdetr_slurm.data.boxes import count_boxes, training_corners
from rtdetr_slurm.data.classes import class_names
from rtdetr_slurm.data.coco import LARGEST, CocoAnnotations, read_annotations
from rtdetr_slurm.data.layout import SplitFiles
from rtdetr_slurm.data.mscoco import is_mscoco
from rtdetr_slurm.errors import RequestError
from rtdetr_slurm.spec.draft.facts import DataFacts

_SMALL = 0.1
"""The share of objects that are smaller than what counts as a small one."""


def gather_facts(
    folder: str,
    splits: Mapping[str, SplitFiles],
    read_file: Callable[[Path], CocoAnnotations] = read_annotations,
) -> DataFacts:
    """Read the annotations of a data set.

    Args:
        folder: of the data set, as it was named.
        splits: of these train, val and test count.
        read_file: reads an annotation file.

    Raises:
        RequestError: there is none to train on, it has no boxes, or a file is none.
    """
    if "train" not in splits:
        found = f"there are {', '.join(sorted(splits))}" if splits else "there is none at all"
        raise RequestError(
            f"{folder}: it has no annotations to train on (train/annotations.json); {found}"
        )
    used = {name: splits[name] for name in ("train", "val", "test") if name in splits}
    read = {name: read_file(files.annotations) for name, files in used.items()}
    train = read["train"]
    if not train.num_boxes:
        raise RequestError(f"{train.path}: it has no boxes, so that there is nothing to learn")
    counts = [count_boxes(read[name]) for name in ("train", "val") if name in read]
    sides = sorted(_relative_sides(train))
    longer = sorted(max(size) for size in zip(train.widths, train.heights, strict=True))
    return DataFacts(
        folder=folder,
        sources={name: (files.image_dir, files.json_file) for name, files in used.items()},
        images=train.num_images,
        boxes=train.num_boxes,
        scored=read["val"].num_images if "val" in read else 0,
        classes=class_names([*read.values()], LARGEST),
        boxes_of=Counter(number for each in read.values() for number in each.category_ids),
        fullest=max(each.fullest_trained[0] for each in counts),
        small_side=sides[int(_SMALL * len(sides))] if sides else None,
        image_side=longer[len(longer) // 2],
        is_mscoco=is_mscoco(train),
    )


def _relative_sides(read: CocoAnnotations) -> list[float]:
    """Of every box that training learns from and whose image has a size: the root of the share of
    the image that it covers."""
    sides = []
    boxes = zip(*(read.boxes[side::4] for side in range(4)), strict=True)
    for image, box, crowd in zip(read.image_index, boxes, read.crowds, strict=True):
        width, height = read.widths[image], read.heights[image]
        if crowd or not width or not height:
            continue
        if corners := training_corners(box, width, height):
            left, top, right, bottom = corners
            sides.append(math.sqrt((right - left) * (bottom - top) / (width * height)))
    return sides
