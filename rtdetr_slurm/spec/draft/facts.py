"""What a spec is chosen from."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from rtdetr_slurm.actions import EngineName


@dataclass(frozen=True)
class DataFacts:
    """A data set in numbers, of its training images where nothing else is said.

    Attributes:
        folder: of the data set, as it was named.
        sources: train, and where there are any val and test → image_dir and json_file.
        images, boxes: how many there are.
        scored: images of val.
        classes: category id → name, of all sources.
        boxes_of: category id → number of boxes, in all sources.
        fullest: the most objects in one image, of train and val.
        small_side: side of a small object (the square of its area), as a share of the side of its
            image (the same): a tenth of all objects are smaller. None where that is not known.
        image_side: the longer side of most images, in pixels; 0 where that is not known.
        is_mscoco: whether the ids are the 80 of MS COCO, which have gaps.
    """

    folder: str
    sources: Mapping[str, tuple[str, str]]
    images: int
    boxes: int
    scored: int
    classes: Mapping[int, str]
    boxes_of: Mapping[int, int]
    fullest: int
    small_side: float | None
    image_side: int
    is_mscoco: bool = False


@dataclass(frozen=True)
class Hardware:
    """What it will be trained on, and from.

    Attributes:
        memory_gb: of each GPU, in GiB.
        said_by: who says so; empty: nobody does.
        models: pretrained weights of the site, by the names of its profile.
        engine: whose image trains.
    """

    memory_gb: float
    said_by: str = ""
    models: Mapping[str, str | None] = field(default_factory=dict)
    engine: EngineName = "rtdetr"
