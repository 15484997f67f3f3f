"""Label Studio's own JSON: a list of tasks, each an image and what was marked on it."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from rtdetr_slurm.data.convert.found import Box, FoundBox, FoundSplit, Report, name_classes
from rtdetr_slurm.data.convert.images import ImageFiles
from rtdetr_slurm.data.convert.locate import locate
from rtdetr_slurm.data.convert.outlines import around_points, around_turned
from rtdetr_slurm.data.image_sources import IMAGE_SUFFIXES
from rtdetr_slurm.data.layout import files_below, split_name, split_of

_MARKED = ("rectanglelabels", "polygonlabels", "ellipselabels")
"""Kinds of marks that have a region."""


def is_label_studio(source: Path) -> bool:
    """Whether a file, or one in a folder, is a list of tasks."""
    return next(_files(source), None) is not None


def read_label_studio(source: Path, images: Path, report: Report) -> list[FoundSplit]:
    """One split for each that a file or its folder is named after.

    Args:
        images: below it are the images.
    """
    files = ImageFiles(images)
    splits: dict[str, FoundSplit] = {}
    for path, tasks in _files(source):
        by_folder = split_of(path, source) if source.is_dir() else "train"
        name = split_name(path.name) or by_folder
        split = splits.setdefault(name, FoundSplit(name))
        for number, task in enumerate(tasks):
            where = f"task {number + 1} of {path}"
            image = _image_of(task)
            if image is None:
                report.problem(f"{where} names no image")
                continue
            marks = _marks(task, where, report)
            stated = _size(marks)
            located = locate([image], stated, path, files, report, split=name)
            if located is None:
                continue
            size = stated if all(stated) else (located.image.width, located.image.height)
            for label, box in _boxes(marks, size, where, report):
                located.image.boxes.append(FoundBox(label, located.placed(box)))
            split.images.append(located.image)
    found = [*splits.values()]
    name_classes(found)
    return found


def _files(source: Path) -> Iterator[tuple[Path, list[Any]]]:
    for path in [source] if source.is_file() else files_below(source, (".json",)):
        try:
            content = json.loads(path.read_text("utf-8-sig"))
        except (ValueError, RecursionError):
            continue
        tasks = content if isinstance(content, list) else []
        if tasks and all(isinstance(task, dict) for task in tasks) and _image_of(tasks[0]):
            yield path, tasks


def _image_of(task: Mapping[str, Any]) -> str | None:
    """The address of a task's image, whatever its labelling interface calls that."""
    data = _map(task.get("data", task))
    texts = (value for value in data.values() if isinstance(value, str))
    return next((text for text in texts if text.lower().endswith(IMAGE_SUFFIXES)), None)


def _marks(task: Mapping[str, Any], where: str, report: Report) -> list[Mapping[str, Any]]:
    """What was marked, as a list of values with their labels; by the last annotator who did."""
    done = [
        one
        for one in _maps(task.get("annotations") or task.get("completions"))
        if not one.get("was_cancelled") and one.get("result")
    ]
    if len(done) > 1:
        report.changed("task that was annotated more than once: the last one counts", where)
    short = task.get("label") or task.get("bbox")  # of the export called JSON-MIN
    marks = _maps(done[-1]["result"] if done else short)
    return [{**mark, **(_map(mark.get("value")))} for mark in marks]


def _maps(value: Any) -> list[Mapping[str, Any]]:
    return [one for one in value if isinstance(one, dict)] if isinstance(value, list) else []


def _map(value: Any) -> Mapping[str, Any]:
    return value if isinstance(value, dict) else {}


def _size(marks: list[Mapping[str, Any]]) -> tuple[int, int]:
    for mark in marks:
        sides = mark.get("original_width"), mark.get("original_height")
        if all(type(side) is int and side > 0 for side in sides):
            return int(sides[0] or 0), int(sides[1] or 0)
    return 0, 0


def _boxes(
    marks: list[Mapping[str, Any]], size: tuple[int, int], where: str, report: Report
) -> Iterator[tuple[str, Box]]:
    for mark in marks:
        kind = next((kind for kind in _MARKED if mark.get(kind)), None)
        labels = mark[kind] if kind else None
        if kind is None or not isinstance(labels, list):
            report.changed("mark without a labelled region: left out", where)
            continue
        box = _box(kind, mark, size)
        if box is None:
            report.problem(f"{where}: a mark of {kind} without numbers")
            continue
        if kind != "rectanglelabels" or mark.get("rotation"):
            report.changed("outline, or turned box: the box around it", where)
        yield str(labels[0]), box


def _box(kind: str, mark: Mapping[str, Any], size: tuple[int, int]) -> Box | None:
    """In pixels; the file has percent of width and height."""
    across, down = size[0] / 100, size[1] / 100
    try:
        if kind == "polygonlabels":
            points = [(x * across, y * down) for x, y in mark["points"]]
            return around_points([[value for point in points for value in point]])
        angle = math.radians(mark.get("rotation") or 0.0)
        x, y = mark["x"] * across, mark["y"] * down
        if kind == "ellipselabels":
            radius = mark["radiusX"] * across, mark["radiusY"] * down
            box = x - radius[0], y - radius[1], 2 * radius[0], 2 * radius[1]
            return around_turned(box, angle, (x, y))
        return around_turned((x, y, mark["width"] * across, mark["height"] * down), angle, (x, y))
    except (KeyError, TypeError, ValueError):
        return None
