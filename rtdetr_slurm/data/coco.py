"""COCO detection annotations, read compactly. Standard library only.

Used on the login node before a job is queued and by the engine before its first step, so that
both say the same about the same file.
"""

from __future__ import annotations

import math
import re
from array import array
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, NoReturn

from rtdetr_slurm.contract import FailureClass
from rtdetr_slurm.data.json_stream import NotJson, stream_object
from rtdetr_slurm.errors import ActionError, RequestError

LARGEST = 2**63 - 1
"""The largest id that the columns hold."""

KINDS_SHOWN = 8
"""So many kinds of problems of a file are told at most."""

_CROWD: Mapping[Any, int] = {0: 0, 1: 1, "0": 0, "1": 1, "false": 0, "true": 1, None: 0}
"""What `iscrowd` may say; False and True are equal to 0 and 1."""

_IN_NO_NAME = re.compile("[\0\ud800-\udfff]")
"""What no file's name has: NUL, and halves of characters."""


@dataclass(frozen=True)
class CocoAnnotations:
    """One annotation file. Columns are typed arrays: compact, and numpy can look at them in place.

    Boxes are in pixels of the upright image, [x, y, width, height] with the origin top left.

    Attributes:
        path: the file they came from.
        categories: category id to name, in the file's order.
        image_ids, file_names, widths, heights: one entry per image, in the file's order; a size of
            0 is not given.
        image_index: one entry per annotation: the position of its image in `image_ids`.
        category_ids, boxes (four numbers each), areas, crowds: one entry per annotation.
        repeated: annotations whose id another one before them has. Nothing here goes by it.
    """

    path: Path
    categories: dict[int, str] = field(default_factory=dict)
    image_ids: array[int] = field(default_factory=lambda: array("q"))
    file_names: list[str] = field(default_factory=list)
    widths: array[int] = field(default_factory=lambda: array("q"))
    heights: array[int] = field(default_factory=lambda: array("q"))
    image_index: array[int] = field(default_factory=lambda: array("q"))
    category_ids: array[int] = field(default_factory=lambda: array("q"))
    boxes: array[float] = field(default_factory=lambda: array("d"))
    areas: array[float] = field(default_factory=lambda: array("d"))
    crowds: array[int] = field(default_factory=lambda: array("b"))
    repeated: int = 0

    @property
    def num_images(self) -> int:
        return len(self.image_ids)

    @property
    def num_boxes(self) -> int:
        return len(self.category_ids)


@dataclass(frozen=True)
class Source:
    """Images and the annotations that name them.

    Attributes:
        image_dir: the folder or archive that the names are in; None: the images are not here yet.
    """

    image_dir: Path | None
    annotations: CocoAnnotations

    @property
    def folder(self) -> Path:
        """Where the images are, of a source whose images are here."""
        assert self.image_dir is not None
        return self.image_dir


def read_annotations(path: Path) -> CocoAnnotations:
    """Read one COCO detection file, entry by entry: it may be larger than the memory.

    A missing `area` becomes width * height (as pycocotools defines a detection's area), a missing
    `iscrowd` becomes 0. Segmentations, key points and all else are left out.

    Raises:
        RequestError: the file cannot be read, is not JSON, or is not COCO detection; the message
            names the file and the entry.
        ActionError: the memory does not suffice.
    """
    try:
        if path.exists() and not path.is_file():  # a pipe would be waited for
            raise RequestError(f"annotation file {path} is not a file")
        return _read(path)
    except FileNotFoundError:
        raise RequestError(f"annotation file {path} does not exist") from None
    except OSError as error:
        raise RequestError(f"annotation file {path} cannot be read: {error.strerror}") from None
    except UnicodeDecodeError:
        _not_coco(path, "it is not JSON: it is not UTF-8 text")
    except NotJson as error:
        _not_coco(path, str(error))
    except MemoryError:
        raise ActionError(
            f"annotation file {path}: its content does not fit into the memory that this process "
            "may use",
            FailureClass.OOM_HOST,
        ) from None


def _read(path: Path) -> CocoAnnotations:
    read, problems = CocoAnnotations(path), _Problems()
    readers = {"images": _read_images, "annotations": _read_boxes, "categories": _read_categories}
    found = []
    for key, value in stream_object(path):
        found.append(key)
        if key in readers:
            if isinstance(value, Iterator):
                readers[key](read, value, problems)
            else:
                kind = "null" if value is None else f"a {type(value).__name__}"
                problems.add(f"'{key}' is {kind}, not a list ([] where there are none)")
    for key in readers:
        if key not in found:
            problems.add(f"it has no list '{key}' (top-level keys found: {sorted(found)[:8]})")
    if "categories" in found and not read.categories and not problems:
        problems.add("its list 'categories' is empty")
    if {*readers} <= {*found}:
        _resolve(read, problems)
    if problems:
        _not_coco(path, str(problems))
    return replace(read, repeated=problems.own_ids.repeated())


class _Wrong(Exception):
    """What is wrong with an entry, and of which kind that is."""

    def __init__(self, text: str, kind: str) -> None:
        super().__init__(text)
        self.kind = kind


class _Problems:
    """What is wrong with a file: of each kind the first, and how many there are.

    Attributes:
        boxes: numbers of the annotations that cannot be used.
        own_ids: ids of the annotations.
    """

    def __init__(self) -> None:
        self._first: dict[str, str] = {}
        self._counts: Counter[str] = Counter()
        self.boxes: set[int] = set()
        self.own_ids = _OwnIds()

    def add(self, text: str, kind: str = "") -> None:
        self._first.setdefault(kind or text, text)
        self._counts[kind or text] += 1

    def catch(self, wrong: _Wrong) -> None:
        self.add(str(wrong), wrong.kind)

    def __bool__(self) -> bool:
        return bool(self._first)

    def __str__(self) -> str:
        said = []
        for kind, text in self._first.items():
            more = self._counts[kind] - 1
            said.append(f"{text} (and {more} more like it)" if more else text)
        others = len(said) - KINDS_SHOWN
        return "; ".join(said[:KINDS_SHOWN]) + (f"; and {others} others" if others > 0 else "")


class _OwnIds:
    """Ids of annotations; a set of them is only made where they are in no order."""

    def __init__(self) -> None:
        self._ids = array("q")
        self._last = -LARGEST - 1
        self._in_order = True

    def add(self, value: Any) -> None:
        if type(value) is int and -LARGEST <= value <= LARGEST:
            self._in_order &= value > self._last
            self._last = value
            self._ids.append(value)

    def repeated(self) -> int:
        return 0 if self._in_order else len(self._ids) - len({*self._ids})


def _read_categories(read: CocoAnnotations, entries: Iterator[Any], problems: _Problems) -> None:
    for number, entry in enumerate(entries):
        where = f"categories[{number}]"
        try:
            category = _id(entry, "id", where)
            if category < 0:
                raise _Wrong(f"{where} has the negative id {category}", "negative id")
            if category in read.categories:
                raise _Wrong(f"category id {category} is given twice", "second category id")
            read.categories[category] = ""
            name = entry.get("name")
            if not isinstance(name, str):
                raise _Wrong(f"{where} has no text 'name'", "name")
            read.categories[category] = name
        except _Wrong as wrong:
            problems.catch(wrong)


def _read_images(read: CocoAnnotations, entries: Iterator[Any], problems: _Problems) -> None:
    for number, entry in enumerate(entries):
        where = f"images[{number}]"
        name, width, height = "", 0, 0
        try:
            # Of an image that is wrong the id is kept, for the annotations that name it.
            read.image_ids.append(_id(entry, "id", where))
            name = _file_name(entry, where)
            width, height = _side(entry, "width", where), _side(entry, "height", where)
        except _Wrong as wrong:
            problems.catch(wrong)
        read.file_names.append(name)
        read.widths.append(width)
        read.heights.append(height)


def _read_boxes(read: CocoAnnotations, entries: Iterator[Any], problems: _Problems) -> None:
    """Fill the columns of the annotations; `image_index` has image ids until `_resolve`."""
    for number, entry in enumerate(entries):
        where = f"annotations[{number}]"
        try:
            image, category = _id(entry, "image_id", where), _id(entry, "category_id", where)
            problems.own_ids.add(entry.get("id"))
            box = entry.get("bbox")
            if not isinstance(box, list) or len(box) != 4:
                raise _Wrong(
                    f"{where} has no 'bbox' of four numbers [x, y, width, height]", "no bbox"
                )
            numbers = [_number(value, where) for value in box]
            area = entry.get("area")
            area = numbers[2] * numbers[3] if area is None else _number(area, where)
            crowd = _crowd(entry.get("iscrowd"), where)
        except _Wrong as wrong:
            problems.catch(wrong)
            problems.boxes.add(number)
            image, category, numbers, area, crowd = 0, 0, [0.0] * 4, 0.0, 0
        read.image_index.append(image)
        read.category_ids.append(category)
        read.boxes.extend(numbers)
        read.areas.append(area)
        read.crowds.append(crowd)


def _resolve(read: CocoAnnotations, problems: _Problems) -> None:
    """Turn image ids into positions: a file may have its lists in any order."""
    position: dict[int, int] = {}
    for number, image_id in enumerate(read.image_ids):
        if position.setdefault(image_id, number) != number:
            problems.add(f"image id {image_id} is given twice", "second image id")
    for number, (image_id, category) in enumerate(
        zip(read.image_index, read.category_ids, strict=True)
    ):
        if number in problems.boxes:
            continue
        where = f"annotations[{number}]"
        if image_id not in position:
            problems.add(
                f"{where} belongs to image id {image_id}, which 'images' does not have",
                "unknown image",
            )
            continue
        if category not in read.categories:
            problems.add(
                f"{where} has category id {category}, which 'categories' does not have",
                "unknown category",
            )
        read.image_index[number] = position[image_id]


def _id(entry: Any, key: str, where: str) -> int:
    if not isinstance(entry, dict):
        raise _Wrong(f"{where} is not an object", f"object in {_list(where)}")
    value = entry.get(key)
    if isinstance(value, bool) or not isinstance(value, int):
        raise _Wrong(
            f"{where} has no whole number '{key}' (found {_shown(value)})",
            f"{key} of {_list(where)}",
        )
    if not -LARGEST <= value <= LARGEST:
        raise _Wrong(
            f"{where} has the {key} {_shown(value)}; allowed are numbers below 2^63: renumber",
            f"{key} too large",
        )
    return value


def _list(where: str) -> str:
    """The list that an entry is in."""
    return where.partition("[")[0]


def _file_name(entry: Mapping[str, Any], where: str) -> str:
    name = entry.get("file_name")
    if not isinstance(name, str) or not name:
        raise _Wrong(f"{where} (id {entry['id']}) has no 'file_name'", "no file_name")
    if _IN_NO_NAME.search(name):
        raise _Wrong(f"{where} has the file_name {name!r}, which no file can have", "file_name")
    return name


def _side(entry: Mapping[str, Any], key: str, where: str) -> int:
    """`width` or `height` in pixels; 0 where the file does not say, as some tools write it, too."""
    value = entry.get(key)
    if value is None:
        return 0
    number = _number(value, where)
    if not 0 <= number < 2**31 or number != int(number):
        raise _Wrong(
            f"{where} has the {key} {_shown(value)}; allowed is a whole number of pixels", "side"
        )
    return int(number)


def _number(value: Any, where: str) -> float:
    if type(value) is int and abs(value) <= LARGEST:
        value = float(value)
    if isinstance(value, float) and math.isfinite(value):
        return value
    raise _Wrong(
        f"{where} holds {_shown(value)} where a finite number is expected",
        f"number in {_list(where)}",
    )


def _crowd(value: Any, where: str) -> int:
    try:
        return _CROWD[value.lower() if isinstance(value, str) else value]
    except (KeyError, TypeError):
        said = f"{where} has iscrowd {_shown(value)}; allowed are 0, 1, false and true"
        raise _Wrong(said, "iscrowd") from None


def _shown(value: Any) -> str:
    """A value of the file, short enough for a message."""
    text = repr(value)
    return text if len(text) <= 60 else f"{text[:57]}..."


def _not_coco(path: Path, problem: str) -> NoReturn:
    raise RequestError(f"annotation file {path} is not a COCO detection file: {problem}")
