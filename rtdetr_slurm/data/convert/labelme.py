"""LabelMe: a JSON file of shapes beside each image."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from rtdetr_slurm.data.convert.found import Box, FoundBox, FoundSplit, Report, name_classes
from rtdetr_slurm.data.convert.images import ImageFiles
from rtdetr_slurm.data.convert.locate import locate
from rtdetr_slurm.data.convert.outlines import around_points
from rtdetr_slurm.data.json_stream import NotJson, stream_object
from rtdetr_slurm.data.layout import files_below, split_of


def is_labelme(source: Path) -> bool:
    """Whether the first JSON file of a folder is LabelMe's."""
    first = next(files_below(source, (".json",)), None) if source.is_dir() else None
    try:
        return first is not None and any(key == "shapes" for key, _ in stream_object(first))
    except (NotJson, UnicodeDecodeError):
        return False


def read_labelme(source: Path, images: Path, report: Report) -> list[FoundSplit]:
    """The splits of a data set: the folders that say so by their names, else all as one.

    Args:
        images: below it are the images.
    """
    files = ImageFiles(images)
    splits: dict[str, FoundSplit] = {}
    for path in files_below(source, (".json",)):
        content = _read(path, report)
        if content is None:
            continue
        named = content.get("imagePath")
        names = [name for name in (named, path.stem) if isinstance(name, str) and name]
        stated = _whole(content.get("imageWidth")), _whole(content.get("imageHeight"))
        split = split_of(path, source)
        located = locate(names, stated, path, files, report, split=split)
        if located is None:
            continue
        for label, box in _boxes(content, path, report):
            located.image.boxes.append(FoundBox(label, located.placed(box)))
        splits.setdefault(split, FoundSplit(split)).images.append(located.image)
    found = [*splits.values()]
    name_classes(found)
    return found


def _read(path: Path, report: Report) -> Mapping[str, Any] | None:
    """What a file says, but for the image that it may hold."""
    try:
        content = {
            key: [*value] if isinstance(value, Iterator) else value
            for key, value in stream_object(path)
            if key != "imageData"
        }
    except (NotJson, UnicodeDecodeError) as error:
        report.problem(f"{path}: {error}")
        return None
    if not isinstance(content.get("shapes"), list):
        report.changed("JSON file without a list of shapes: passed over", path)
        return None
    return content


def _whole(value: Any) -> int:
    return value if type(value) is int and value > 0 else 0


def _boxes(content: Mapping[str, Any], path: Path, report: Report) -> Iterator[tuple[str, Box]]:
    for number, shape in enumerate(content["shapes"]):
        where = f"shape {number + 1} of {path}"
        kind, label = "polygon", None
        box = None
        if isinstance(shape, dict):
            kind, label = shape.get("shape_type") or "polygon", shape.get("label")
            if kind in ("point", "points", "line", "linestrip"):
                report.changed(f"{kind}, which is no region: left out", where)
                continue
            box = _box(kind, shape.get("points"))
        if box is None or not isinstance(label, str) or not label:
            report.problem(f"{where} has no {'points' if label else 'label'}")
            continue
        if kind != "rectangle":
            report.changed("outline: the box around it", where)
        yield label, box


def _box(kind: str, points: Any) -> Box | None:
    try:
        if kind == "circle":
            (x, y), (edge_x, edge_y) = points
            radius = math.hypot(edge_x - x, edge_y - y)
            return x - radius, y - radius, 2 * radius, 2 * radius
        return around_points([[value for x, y in points for value in (x, y)]])
    except (TypeError, ValueError):
        return None
