"""A converted data set as files: one root for each split, as every command here takes them."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from rtdetr_slurm.data.convert.found import FoundSplit, Report
from rtdetr_slurm.files import folder_beside
from rtdetr_slurm.spec.datasets import ANNOTATIONS, IMAGES, LABELS


def write_splits(
    folder: Path, splits: Sequence[FoundSplit], ids: Mapping[str, int], report: Report
) -> None:
    """Make `folder`, whole or not at all: `SPLIT/images`, `SPLIT/annotations.json`, label_map.txt.

    Images are hard links, which take no room, where the file system has them, else copies.

    Raises:
        FileExistsError: there is something already.
        OSError: it cannot be made, or the disk is full.
    """
    if os.path.lexists(folder):
        raise FileExistsError(17, "exists already and is left as it is", str(folder))
    with folder_beside(folder) as scratch:
        made = scratch / folder.name
        made.mkdir()
        for split in splits:
            _write_split(made / split.name, split, ids, report)
        names = {number: name for name, number in ids.items()}
        lines = [_label(number, names) for number in range(max(names, default=-1) + 1)]
        (made / LABELS).write_text("".join(f"{line}\n" for line in lines))
        made.rename(folder)


def _label(number: int, names: Mapping[int, str]) -> str:
    """What class `number` is called; those without a name have one of their own, too."""
    is_background = number == 0 and "background" not in names.values()
    return names.get(number, "background" if is_background else f"unused_{number}")


def _write_split(folder: Path, split: FoundSplit, ids: Mapping[str, int], report: Report) -> None:
    common = Path(os.path.commonpath([image.file.parent for image in split.images]))
    made: set[Path] = set()
    for image in split.images:
        place = folder / IMAGES / image.file.relative_to(common)
        if place.parent not in made:
            place.parent.mkdir(parents=True, exist_ok=True)
            made.add(place.parent)
        _put(image.file, place)
    content = {
        "images": _images(split, common, report),
        "annotations": _annotations(split, ids),
        "categories": [{"id": number, "name": name} for name, number in ids.items()],
    }
    (folder / ANNOTATIONS).write_text(json.dumps(content) + "\n")


def _put(file: Path, place: Path) -> None:
    """A link to the file itself, not to a link: what it leads to must be there in a container."""
    real = file.resolve()
    try:
        os.link(real, place)
    except FileExistsError:
        if not place.samefile(real):
            raise
    except OSError:  # another file system, one without links, or a file of somebody else
        shutil.copyfile(real, place)


def _images(split: FoundSplit, common: Path, report: Report) -> list[dict[str, Any]]:
    numbers = [image.number for image in split.images]
    if None in numbers or len(set(numbers)) < len(numbers):
        if any(number is not None for number in numbers):
            report.changed("split whose image ids are not one each: numbered from 1", split.name)
        for number, image in enumerate(split.images, start=1):
            image.number = number
    return [
        {
            "id": image.number,
            "file_name": image.file.relative_to(common).as_posix(),
            "width": image.width,
            "height": image.height,
        }
        for image in split.images
    ]


def _annotations(split: FoundSplit, ids: Mapping[str, int]) -> list[dict[str, Any]]:
    pairs = [(image, box) for image in split.images for box in image.boxes]
    return [
        {
            "id": number,
            "image_id": image.number,
            "category_id": ids[found.label],
            "bbox": [*found.box],
            "area": round(found.box[2] * found.box[3], 3) if found.area is None else found.area,
            "iscrowd": int(found.crowd),
        }
        for number, (image, found) in enumerate(pairs, start=1)
    ]
