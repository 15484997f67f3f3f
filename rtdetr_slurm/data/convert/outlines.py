"""The box around a segmentation, as COCO and the tools that export to it write them. Standard
library only."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from rtdetr_slurm.data.convert.found import Box


def box_around(segmentation: Any) -> Box | None:
    """The box around polygons [[x, y, x, y, …], …], a polygon, or run lengths; None: it is none of
    them, or empty."""
    try:
        if isinstance(segmentation, dict):
            height, width = segmentation["size"]
            counts = segmentation["counts"]
            runs = _decoded(counts) if isinstance(counts, str) else [*map(int, counts)]
            return _around_runs(runs, int(height), int(width))
        flat = segmentation and not isinstance(segmentation[0], list | tuple)
        return around_points([segmentation] if flat else segmentation)
    except (TypeError, ValueError, OverflowError, LookupError):
        return None


def around_points(polygons: Sequence[Sequence[Any]]) -> Box | None:
    """The box around all of some polygons, each [x, y, x, y, …].

    Raises:
        TypeError, ValueError: they are not of numbers.
    """
    xs = [float(value) for polygon in polygons for value in polygon[::2]]
    ys = [float(value) for polygon in polygons for value in polygon[1::2]]
    if not ys or len(xs) != len(ys):
        return None
    return min(xs), min(ys), max(xs) - min(xs), max(ys) - min(ys)


def around_turned(box: Box, angle: float, pivot: tuple[float, float]) -> Box:
    """The box around one that is turned, clockwise and in radians, about a point."""
    if not angle:
        return box
    x, y, w, h = box
    cos, sin = math.cos(angle), math.sin(angle)
    outline = []
    for corner_x, corner_y in ((x, y), (x + w, y), (x, y + h), (x + w, y + h)):
        across, down = corner_x - pivot[0], corner_y - pivot[1]
        outline += [pivot[0] + across * cos - down * sin, pivot[1] + across * sin + down * cos]
    return around_points([outline]) or box


def _around_runs(runs: Sequence[int], height: int, width: int) -> Box | None:
    """Of a mask, column by column: so many pixels outside, so many inside, and so on."""
    left, top, right, bottom = width, height, 0, 0
    at = 0
    for number, length in enumerate(runs):
        if number % 2 and length > 0:
            first, last = at, at + length - 1
            left, right = min(left, first // height), max(right, last // height + 1)
            whole = first // height != last // height  # it goes on at the top of the next column
            top = 0 if whole else min(top, first % height)
            bottom = height if whole else max(bottom, last % height + 1)
        at += length
    if right <= left or at > width * height:
        return None
    return float(left), float(top), float(right - left), float(bottom - top)


def _decoded(text: str) -> list[int]:
    """COCO's run lengths as text: five bits in each character, the sixth if there are more, and
    from the third on the difference to the last but one."""
    runs: list[int] = []
    value = shift = 0
    for character in text:
        bits = ord(character) - 48
        value |= (bits & 0x1F) << shift
        shift += 5
        if bits & 0x20:
            continue
        if bits & 0x10:
            value |= -1 << shift
        runs.append(value + (runs[-2] if len(runs) > 2 else 0))
        value = shift = 0
    return runs
