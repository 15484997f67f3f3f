"""What a file of COCO's form says, however a labelling tool writes that.

Entry by entry: a file may be large. Standard library only.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from rtdetr_slurm.data.coco import LARGEST
from rtdetr_slurm.data.convert.found import Box, Report
from rtdetr_slurm.data.convert.outlines import box_around
from rtdetr_slurm.data.json_stream import NotJson, stream_object

Key = int | str
"""An id as the file means it: 12, 12.0 and "12" are one."""

_CROWD = {"0": False, "1": True, "false": False, "true": True, "none": False}


@dataclass
class Export:
    """What a file says, with ids as keys.

    Attributes:
        images: key → name, width and height; a side of 0 is not given.
        boxes: image's key, class's key, box, crowd region or not, area, where it stands.
        classes: key → name.
    """

    path: Path
    images: dict[Key, tuple[str, int, int]] = field(default_factory=dict)
    boxes: list[tuple[Key, Key, Box, bool, float | None, str]] = field(default_factory=list)
    classes: dict[Key, str] = field(default_factory=dict)


def read_export(path: Path, report: Report) -> Export:
    """Read a file; entries of which nothing can be made are problems of the report."""
    export = Export(path)
    readers = {"images": _read_image, "annotations": _read_box, "categories": _read_class}
    try:
        for part, entries in stream_object(path):
            if part in readers and isinstance(entries, Iterator):
                for number, entry in enumerate(entries):
                    where = f"{part}[{number}] of {path}"
                    if isinstance(entry, dict):
                        readers[part](export, entry, where, report)
                    else:
                        report.problem(f"{where} is not an object")
    except (NotJson, UnicodeDecodeError) as error:
        report.problem(f"{path}: {error}")
    return export


def _read_image(export: Export, entry: Mapping[str, Any], where: str, report: Report) -> None:
    key = _key(entry.get("id"), where, report)
    name = entry.get("file_name")
    if key is None or not isinstance(name, str) or not name:
        report.problem(f"{where} has no {'id' if key is None else 'file_name'}")
        return
    if key in export.images:
        report.problem(f"{where} has the id of another image: {entry.get('id')!r}")
        return
    export.images[key] = (name, _side(entry.get("width")), _side(entry.get("height")))


def _read_box(export: Export, entry: Mapping[str, Any], where: str, report: Report) -> None:
    image = _key(entry.get("image_id"), where, report)
    label = _key(entry.get("category_id"), where, report)
    if image is None or label is None:
        report.problem(f"{where} has no {'image_id' if image is None else 'category_id'}")
        return
    box = _box(entry.get("bbox"))
    if box is None:
        box = box_around(entry.get("segmentation"))
        what = "annotation without a box: the one around its segmentation"
        report.changed(what if box else "annotation without a box: left out", where)
    if box is None:
        return
    if "iscrowd" not in entry:
        report.changed("annotation without iscrowd: 0", where)
    area = _number(entry.get("area"))
    if area is None or area <= 0:
        area = None
        report.changed("annotation without area: that of its box", where)
    crowd = _CROWD.get(str(entry.get("iscrowd")).lower())
    if crowd is None:
        report.changed("annotation whose iscrowd is neither 0 nor 1: 0", where)
    export.boxes.append((image, label, box, bool(crowd), area, where))


def _read_class(export: Export, entry: Mapping[str, Any], where: str, report: Report) -> None:
    key = _key(entry.get("id"), where, report)
    if key is None:
        report.problem(f"{where} has no id")
        return
    name = entry.get("name")
    if not isinstance(name, str) or not name.strip():
        report.changed("class without a name: named by its id", where)
        name = f"class_{key}"
    if export.classes.setdefault(key, name.strip()) != name.strip():
        report.problem(f"{where} has the id of another class: {entry.get('id')!r}")


def _key(value: Any, where: str, report: Report) -> Key | None:
    if type(value) is int and abs(value) <= LARGEST:
        return value
    number = _number(value)
    if number is not None and number == int(number) and abs(number) <= LARGEST:
        report.changed("entry with an id as text or with a fraction: a whole number", where)
        return int(number)
    return value if isinstance(value, str) and value else None


def _number(value: Any) -> float | None:
    if isinstance(value, bool) or not isinstance(value, int | float | str):
        return None
    try:
        number = float(value)
    except (ValueError, OverflowError):
        return None
    return number if math.isfinite(number) else None


def _side(value: Any) -> int:
    number = _number(value)
    return round(number) if number is not None and 0 < number < 2**31 else 0


def _box(value: Any) -> Box | None:
    if not isinstance(value, list) or len(value) != 4:
        return None
    numbers = [number for each in value if (number := _number(each)) is not None]
    return (numbers[0], numbers[1], numbers[2], numbers[3]) if len(numbers) == 4 else None
