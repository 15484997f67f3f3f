"""MS COCO's category ids, which run from 1 to 90 with gaps, as class indices 0..79. Standard
library only."""

from __future__ import annotations

from array import array
from dataclasses import replace

from rtdetr_slurm.data.coco import CocoAnnotations
from rtdetr_slurm.errors import RequestError

_GAPS = frozenset({12, 26, 29, 30, 45, 66, 68, 69, 71, 83})
_INDEX = {
    category: index
    for index, category in enumerate(each for each in range(1, 91) if each not in _GAPS)
}

MSCOCO_CLASSES = len(_INDEX)
_BEFORE_THE_GAPS = (
    *("person", "bicycle", "car", "motorcycle", "airplane", "bus", "train", "truck", "boat"),
    *("traffic light", "fire hydrant"),
)
"""Categories 1 to 11."""


def without_gaps(annotations: CocoAnnotations) -> CocoAnnotations:
    """The same annotations, with ids as the published RT-DETR weights count their classes.

    Raises:
        RequestError: a category has none of COCO's ids, or they are another data set's that counts
            from 1.
    """
    first = dict(enumerate(_BEFORE_THE_GAPS, start=1))
    ours = {*annotations.categories.items()}
    if ours and {*annotations.categories} <= {*first} and not ours & {*first.items()}:
        raise RequestError(
            f"{annotations.path} has the category ids {sorted(annotations.categories)}, with names "
            f"of which MS COCO has none there (id {min(annotations.categories)} is "
            f"{annotations.categories[min(annotations.categories)]!r}, and there "
            f"{first[min(annotations.categories)]!r}): leave dataset.remap_mscoco_category out, "
            "which is for MS COCO's own ids alone"
        )
    others = sorted({*annotations.categories} - {*_INDEX})
    if others:
        raise RequestError(
            f"{annotations.path} has category id {others[0]} "
            f"({annotations.categories[others[0]]!r}), which none of MS COCO's 80 categories has: "
            "leave dataset.remap_mscoco_category out"
        )
    return replace(
        annotations,
        categories={_INDEX[category]: name for category, name in annotations.categories.items()},
        category_ids=array("q", (_INDEX[category] for category in annotations.category_ids)),
    )


def is_mscoco(annotations: CocoAnnotations) -> bool:
    """Whether the categories are MS COCO's, by their ids."""
    return {*annotations.categories} == {*_INDEX}
