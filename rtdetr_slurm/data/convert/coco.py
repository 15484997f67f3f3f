"""Exports in COCO's form, as labelling tools write it: ids as text or with a fraction, boxes as
shares or corners or only segmentations, paths of another machine, and fields left out.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from rtdetr_slurm.data.boxes import count_boxes, misread_as
from rtdetr_slurm.data.coco import CocoAnnotations
from rtdetr_slurm.data.convert.coco_export import Export, Key, read_export
from rtdetr_slurm.data.convert.found import FoundBox, FoundSplit, Report
from rtdetr_slurm.data.convert.images import ImageFiles
from rtdetr_slurm.data.convert.locate import Located, locate
from rtdetr_slurm.data.layout import annotation_files


def is_coco(source: Path) -> bool:
    """Whether a folder, or a file, has annotations in COCO's form."""
    return bool(annotation_files(source))


def read_coco(source: Path, images: Path, report: Report) -> list[FoundSplit]:
    """One split for each file of COCO's form.

    Args:
        images: below it are the images, wherever the files say.

    Raises:
        RequestError: two files are for the same split.
    """
    files = ImageFiles(images)
    return [
        _split(name, read_export(path, report), files, report)
        for name, path in annotation_files(source).items()
    ]


def _split(name: str, export: Export, files: ImageFiles, report: Report) -> FoundSplit:
    images = _images(name, export, files, report)
    names = _class_names(export, report)
    _check_form(export, images, report)
    all_crowd = len(export.boxes) > 0 and all(crowd for *_, crowd, _, _ in export.boxes)
    for image_key, label_key, box, crowd, area, where in export.boxes:
        if image_key not in export.images:
            report.changed("annotation of an image that is not listed: left out", where)
            continue
        if all_crowd:
            report.changed("annotation marked as a crowd region, as all are: a single one", where)
        located = images.get(image_key)
        if located is None:
            continue
        placed = located.placed(box)
        kept = area if placed == box else None
        label = names[label_key]
        located.image.boxes.append(FoundBox(label, placed, crowd and not all_crowd, kept))
    found = [located.image for located in images.values()]
    return FoundSplit(name, found, _ids(export, names, report))


def _images(split: str, export: Export, files: ImageFiles, report: Report) -> dict[Key, Located]:
    found: dict[Key, Located] = {}
    for key, (name, width, height) in export.images.items():
        located = locate([name], (width, height), export.path, files, report, split=split)
        if located is None:
            continue
        if isinstance(key, int):
            located.image.number = key
        else:
            report.changed("image whose id is text: numbered", name)
        found[key] = located
    return found


def _class_names(export: Export, report: Report) -> dict[Key, str]:
    names = dict(export.classes)
    for _, key, *_, where in export.boxes:
        if key not in names:
            names[key] = key if isinstance(key, str) else f"class_{key}"
            report.changed("class that 'categories' does not have: named by its id", where)
    return names


def _ids(export: Export, names: Mapping[Key, str], report: Report) -> dict[str, int | None]:
    """Name → id; of a name that is there twice the id that has boxes."""
    used = {key for _, key, *_ in export.boxes}
    ids: dict[str, int | None] = {}
    taken: dict[str, Key] = {}
    for key, name in names.items():
        if name in taken:
            report.changed("class whose name another one has: the two are one", f"{name!r}, {key}")
            if key not in used or taken[name] in used:
                continue
        taken[name] = key
        if isinstance(key, str):
            report.changed("class whose id is text: numbered", f"{name!r}, {key!r}")
        ids[name] = key if isinstance(key, int) else None
    return ids


def _check_form(export: Export, images: Mapping[Key, Located], report: Report) -> None:
    """Make boxes of shares, or of corners, what COCO's are; all of a file are of one form."""
    read = CocoAnnotations(export.path)
    position: dict[Key, int] = {}
    for key, (_, width, height) in export.images.items():
        located = images.get(key)
        position[key] = len(position)
        read.widths.append(width or (located.image.width if located else 0))
        read.heights.append(height or (located.image.height if located else 0))
        read.image_ids.append(position[key])
    for image_key, _, box, crowd, *_ in export.boxes:
        if image_key in position:
            read.image_index.append(position[image_key])
            read.boxes.extend(box)
            read.crowds.append(crowd)
            read.category_ids.append(0)
    form = misread_as(count_boxes(read))
    if form is None:
        return
    placed = []
    for image_key, label, (x, y, w, h), crowd, _, where in export.boxes:
        at = position.get(image_key)
        if at is None:
            continue
        box = x, y, w - x, h - y
        if form == "shares":
            width, height = read.widths[at], read.heights[at]
            box = x * width, y * height, w * width, h * height
            report.changed("box in shares of the image: in pixels", where)
        else:
            report.changed("box of two corners: of corner, width and height", where)
        placed.append((image_key, label, box, crowd, None, where))
    export.boxes[:] = placed
