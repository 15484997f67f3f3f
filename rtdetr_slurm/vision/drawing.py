"""Pictures with their detections drawn in."""

from __future__ import annotations

import colorsys
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

MIN_SCORE = 0.4
"""Detections below this are not drawn."""
CELL = 400
"""Side of a picture in the sheet, in pixels."""
COLUMNS = 4
MARGIN = 8
PAPER = (24, 26, 30)


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
    pen = ImageDraw.Draw(picture)
    font = ImageFont.load_default(size=14)
    shown = [d for d in detections if d.score >= MIN_SCORE]
    for detection in sorted(shown, key=lambda d: d.score):
        left, top, right, bottom = (value * scale for value in detection.box)
        box = (
            min(max(left, 0), fitted[0] - 1),
            min(max(top, 0), fitted[1] - 1),
            min(max(right, 0), fitted[0] - 1),
            min(max(bottom, 0), fitted[1] - 1),
        )
        if box[2] <= box[0] or box[3] <= box[1]:
            continue
        colour = class_colour(detection.label)
        pen.rounded_rectangle(box, radius=3, outline=colour, width=3)
        name = classes.get(detection.label, f"class {detection.label}")
        _draw_label(pen, font, f"{name} {detection.score:.2f}", box, colour, fitted)
    return picture


def class_colour(label: int) -> tuple[int, int, int]:
    """A colour of its own for each class; neighbours in id are far apart in hue."""
    hue = (label * 0.618033988749895) % 1.0  # the golden ratio spreads any number of hues evenly
    red, green, blue = colorsys.hsv_to_rgb(hue, 0.75, 1.0)
    return round(red * 255), round(green * 255), round(blue * 255)


def _draw_label(
    pen: ImageDraw.ImageDraw,
    font: ImageFont.FreeTypeFont | ImageFont.ImageFont,
    text: str,
    box: tuple[float, float, float, float],
    colour: tuple[int, int, int],
    limits: tuple[int, int],
) -> None:
    """A filled tag on the box's upper edge; inside the box where there is no room above."""
    left, top, right, bottom = pen.textbbox((0, 0), text, font=font)
    width, height = right - left + 8, bottom - top + 6
    x = min(max(box[0], 0), max(limits[0] - width, 0))
    y = box[1] - height if box[1] >= height else box[1]
    pen.rounded_rectangle((x, y, x + width, y + height), radius=3, fill=colour)
    luminance = 0.299 * colour[0] + 0.587 * colour[1] + 0.114 * colour[2]
    ink = (0, 0, 0) if luminance > 110 else (255, 255, 255)
    pen.text((x + 4 - left, y + 3 - top), text, font=font, fill=ink)
