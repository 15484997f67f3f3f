"""CVAT's own form ("CVAT for images"): one XML file for all images."""

from __future__ import annotations

import math
from collections.abc import Iterator
from pathlib import Path
from xml.etree import ElementTree

from rtdetr_slurm.data.convert.found import Box, FoundBox, FoundSplit, Report, name_classes
from rtdetr_slurm.data.convert.images import ImageFiles
from rtdetr_slurm.data.convert.locate import locate
from rtdetr_slurm.data.convert.outlines import around_points, around_turned
from rtdetr_slurm.data.convert.xml_tree import is_tree, number_in, read_tree
from rtdetr_slurm.data.layout import files_below, split_name, split_of

_TOP = "annotations"


def is_cvat(source: Path) -> bool:
    """Whether a file, or one in a folder, is CVAT's."""
    return next(_files(source), None) is not None


def read_cvat(source: Path, images: Path, report: Report) -> list[FoundSplit]:
    """The splits of a data set: CVAT's subsets, else the folders that say so by their names.

    Args:
        images: below it are the images.
    """
    files = ImageFiles(images)
    splits: dict[str, FoundSplit] = {}
    for path in _files(source):
        tree = read_tree(path, _TOP, report)
        by_folder = split_of(path, source) if source.is_dir() else "train"
        for entry in () if tree is None else tree.iterfind("image"):
            name = entry.get("name", "")
            sides = (number_in(entry.get(side)) or 0 for side in ("width", "height"))
            width, height = map(round, sides)
            subset = entry.get("subset", "")
            split = split_name(subset) or by_folder
            if not name:
                report.problem(f"{path}: image {entry.get('id')} has no name")
                continue
            located = locate([name], (width, height), path, files, report, split=split)
            if located is None:
                continue
            for label, box in _boxes(entry, f"{name!r} of {path}", report):
                located.image.boxes.append(FoundBox(label, located.placed(box)))
            splits.setdefault(split, FoundSplit(split)).images.append(located.image)
    found = [*splits.values()]
    name_classes(found)
    return found


def _files(source: Path) -> Iterator[Path]:
    paths = [source] if source.is_file() else files_below(source, (".xml",))
    return (path for path in paths if is_tree(path, _TOP))


def _boxes(image: ElementTree.Element, where: str, report: Report) -> Iterator[tuple[str, Box]]:
    for shape in image:
        box = _box(shape)
        label = shape.get("label", "")
        if shape.tag in ("tag", "points", "polyline"):
            report.changed(f"{shape.tag}, which is no region: left out", where)
        elif box is None or not label:
            report.problem(f"{where}: a {shape.tag} that has no {'box' if label else 'label'}")
        else:
            if shape.tag != "box":
                report.changed("outline: the box around it", where)
            yield label, box


def _box(shape: ElementTree.Element) -> Box | None:
    if shape.tag == "polygon":
        pairs = [pair.split(",") for pair in shape.get("points", "").split(";")]
        try:
            return around_points([[value for x, y in pairs for value in (x, y)]])
        except ValueError:
            return None
    names = {
        "box": ("xtl", "ytl", "xbr", "ybr"),
        "ellipse": ("cx", "cy", "rx", "ry"),
        "mask": ("left", "top", "width", "height"),
    }
    numbers = [number_in(shape.get(name)) for name in names.get(shape.tag, ())]
    if len(numbers) != 4 or None in numbers:
        return None
    a, b, c, d = (number for number in numbers if number is not None)
    box = {
        "box": (a, b, c - a, d - b),
        "ellipse": (a - c, b - d, 2 * c, 2 * d),
        "mask": (a, b, c, d),
    }[shape.tag]
    x, y, w, h = box
    angle = math.radians(number_in(shape.get("rotation")) or 0.0)
    return around_turned(box, angle, (x + w / 2, y + h / 2))
