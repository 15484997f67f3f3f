"""Pictures with their detections drawn in."""

from __future__ import annotations

import colorsys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

MIN_SCORE = 0.4
"""Detections below this are not drawn."""
OUTLINE = 3
"""Width of a box's outline in pixels."""
RADIUS = 3
"""Of its corners."""
FONT_SIZE = 14
CELL = 400
"""Side of a picture in the sheet, in pixels."""
COLUMNS = 4
MARGIN = 8
PAPER = (24, 26, 30)

Rgb: TypeAlias = tuple[int, int, int]
_Font: TypeAlias = ImageFont.FreeTypeFont | ImageFont.ImageFont


@dataclass(frozen=True)
class Drawn:
    """One detection to draw: a box in pixels (left, top, right, bottom), a class, a score."""

    box: tuple[float, float, float, float]
    label: int
    score: float


def draw_sheet(
    pictures: Sequence[tuple[NDArray[np.uint8], Sequence[Drawn]]], classes: dict[int, str]
) -> Image.Image:
    """Several pictures with their detections, side by side, each fitted into a square cell.

    Args:
        pictures: uint8 [H, W, 3] RGB and the detections on it, in its own pixels.
        classes: class id to name.
    """
    columns = min(COLUMNS, max(len(pictures), 1))
    rows = -(-len(pictures) // columns)
    pitch = CELL + MARGIN
    sheet = Image.new("RGB", (columns * pitch + MARGIN, rows * pitch + MARGIN), PAPER)
    for number, (pixels, detections) in enumerate(pictures):
        cell = draw_detections(pixels, detections, classes)
        left = MARGIN + (number % columns) * pitch + (CELL - cell.width) // 2
        top = MARGIN + (number // columns) * pitch + (CELL - cell.height) // 2
        sheet.paste(cell, (left, top))
    return sheet


def draw_detections(
    pixels: NDArray[np.uint8], detections: Sequence[Drawn], classes: dict[int, str]
) -> Image.Image:
    """One picture, enlarged or shrunk to fit a cell, the best detections on top."""
    height, width = pixels.shape[:2]
    scale = CELL / max(height, width)
    fitted = (max(1, round(width * scale)), max(1, round(height * scale)))
    picture = Image.fromarray(pixels).resize(fitted, Image.Resampling.LANCZOS)
    shown = [d for d in detections if d.score >= MIN_SCORE]
    _draw(picture, shown, classes, scale=scale)
    return picture


def annotate(
    pixels: NDArray[np.uint8],
    detections: Sequence[Drawn],
    classes: Mapping[int, str],
    colours: Mapping[int, Rgb],
    outline: int = OUTLINE,
) -> Image.Image:
    """One picture in its own size with all of its detections, the best on top.

    Args:
        colours: of classes that have one of their own choice.
        outline: width of the boxes' outlines in pixels.
    """
    picture = Image.fromarray(pixels)
    size = min(max(min(picture.size) // 40, FONT_SIZE), 4 * FONT_SIZE)
    _draw(picture, detections, classes, colours, outline, size)
    return picture


def _draw(
    picture: Image.Image,
    detections: Sequence[Drawn],
    classes: Mapping[int, str],
    colours: Mapping[int, Rgb] | None = None,
    outline: int = OUTLINE,
    font_size: int = FONT_SIZE,
    scale: float = 1.0,
) -> None:
    """Draw detections, whose boxes are `scale` times as large in the picture."""
    pen = ImageDraw.Draw(picture)
    font = ImageFont.load_default(size=font_size)
    width, height = picture.size
    for detection in sorted(detections, key=lambda d: d.score):
        left, top, right, bottom = (value * scale for value in detection.box)
        box = (
            min(max(left, 0), width - 1),
            min(max(top, 0), height - 1),
            min(max(right, 0), width - 1),
            min(max(bottom, 0), height - 1),
        )
        if box[2] <= box[0] or box[3] <= box[1]:
            continue
        colour = (colours or {}).get(detection.label) or class_colour(detection.label)
        if min(box[2] - box[0], box[3] - box[1]) > 2 * RADIUS + 2:
            pen.rounded_rectangle(box, radius=RADIUS, outline=colour, width=outline)
        else:  # too small for Pillow to round its corners
            pen.rectangle(box, outline=colour, width=outline)
        name = classes.get(detection.label, f"class {detection.label}")
        _draw_label(pen, font, f"{name} {detection.score:.2f}", box, colour, (width, height))


def class_colour(label: int) -> Rgb:
    """A colour of its own for each class; neighbours in id are far apart in hue."""
    hue = (label * 0.618033988749895) % 1.0  # the golden ratio spreads any number of hues evenly
    red, green, blue = colorsys.hsv_to_rgb(hue, 0.75, 1.0)
    return round(red * 255), round(green * 255), round(blue * 255)


def _draw_label(
    pen: ImageDraw.ImageDraw,
    font: _Font,
    text: str,
    box: tuple[float, float, float, float],
    colour: Rgb,
    limits: tuple[int, int],
) -> None:
    """A filled tag on the box's upper edge; inside the box where there is no room above."""
    left, top, right, bottom = pen.textbbox((0, 0), text, font=font)
    width, height = right - left + 8, bottom - top + 6
    x = min(max(box[0], 0), max(limits[0] - width, 0))
    y = box[1] - height if box[1] >= height else box[1]
    pen.rounded_rectangle((x, y, x + width, y + height), radius=RADIUS, fill=colour)
    luminance = 0.299 * colour[0] + 0.587 * colour[1] + 0.114 * colour[2]
    ink = (0, 0, 0) if luminance > 110 else (255, 255, 255)
    pen.text((x + 4 - left, y + 3 - top), text, font=font, fill=ink)
