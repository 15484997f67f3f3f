"""Small data sets of other tools, and what they become."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from PIL import Image

from rtdetr_slurm.data.coco import CocoAnnotations, read_annotations
from rtdetr_slurm.data.convert.convert import Converted, convert

SIZE = (100, 50)
"""Width and height of images, unless another is given."""


def write_image(path: Path, size: tuple[int, int] = SIZE, **options: Any) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("L", size).save(path, **options)


def write_text(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)


def converted(source: Path, **options: Any) -> tuple[Converted, Mapping[str, CocoAnnotations]]:
    """What a data set becomes, and its annotations as training reads them, by split."""
    folder = source.parent / f"{source.name}-converted"
    done = convert(source, folder, **options)
    read = {name: read_annotations(folder / name / "annotations.json") for name in done.splits}
    for name, split in read.items():
        for file in split.file_names:
            assert (folder / name / "images" / file).is_file()
    return done, read


def boxes_of(read: CocoAnnotations) -> list[tuple[str, str, list[float]]]:
    """File name, class name and box of each annotation."""
    return [
        (read.file_names[image], read.categories[category], [*read.boxes[4 * n : 4 * n + 4]])
        for n, (image, category) in enumerate(zip(read.image_index, read.category_ids, strict=True))
    ]


def changes(done: Converted) -> dict[str, int]:
    """What was changed, and how often."""
    return {change.what: change.count for change in done.changes}
