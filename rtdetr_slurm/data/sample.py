"""A small detection data set to try things with: coloured shapes on soft backgrounds.

    python -m rtdetr_slurm.data.sample sample-data

writes train/ and val/ (images/ and annotations.json, COCO format, category ids from 1) and
label_map.txt. Every image is a function of (seed, split, number) alone.
"""

from __future__ import annotations

import argparse
import json
import math
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import numpy as np
    from PIL import Image

CLASSES = ("circle", "square", "triangle")
"""Class names; the category id of the first is 1, so that num_classes is len(CLASSES) + 1."""

MAX_SHAPES = 4
Point = tuple[float, float]


def write_sample(
    root: Path, train: int = 400, val: int = 100, size: int = 160, seed: int = 0
) -> None:
    """Write the data set below `root`, replacing the files of an earlier one.

    Args:
        train, val: number of images in each split.
        size: width and height of each image in pixels.
    """
    for number, (split, count) in enumerate((("train", train), ("val", val))):
        _write_split(root / split, count, size, (seed, number))
    lines = ("background", *CLASSES)
    (root / "label_map.txt").write_text("".join(f"{name}\n" for name in lines))


def _write_split(folder: Path, count: int, size: int, seed: tuple[int, int]) -> None:
    import numpy as np

    images = folder / "images"
    images.mkdir(parents=True, exist_ok=True)
    content: dict[str, list[Any]] = {
        "images": [],
        "annotations": [],
        "categories": [{"id": i, "name": name} for i, name in enumerate(CLASSES, start=1)],
    }
    for number in range(1, count + 1):
        picture, shapes = _draw(np.random.default_rng((*seed, number)), size)
        name = f"{number:06d}.jpg"
        picture.save(images / name, quality=92)
        content["images"].append({"id": number, "file_name": name, "width": size, "height": size})
        for category, (left, top, right, bottom) in shapes:
            width, height = right - left, bottom - top
            content["annotations"].append(
                {
                    "id": len(content["annotations"]) + 1,
                    "image_id": number,
                    "category_id": category,
                    "bbox": [round(v, 2) for v in (left, top, width, height)],
                    "area": round(width * height, 2),
                    "iscrowd": 0,
                }
            )
    (folder / "annotations.json").write_text(json.dumps(content) + "\n")


def _draw(rng: np.random.Generator, size: int) -> tuple[Image.Image, list[tuple[int, list[float]]]]:
    """One picture and its shapes as (category id, [left, top, right, bottom])."""
    from PIL import Image, ImageDraw

    scale = 3  # drawn larger and shrunk, for smooth edges
    picture = _background(rng, size * scale)
    pen = ImageDraw.Draw(picture)
    shapes: list[tuple[int, list[float]]] = []
    for _ in range(int(rng.integers(1, MAX_SHAPES + 1))):
        radius = rng.uniform(0.1, 0.22) * size
        x, y = rng.uniform(radius + 1, size - radius - 1, 2)
        category = int(rng.integers(1, len(CLASSES) + 1))
        outline = OUTLINES[CLASSES[category - 1]](x, y, radius, rng.uniform(0, 2 * math.pi))
        xs, ys = [p[0] for p in outline], [p[1] for p in outline]
        box = [float(min(xs)), float(min(ys)), float(max(xs)), float(max(ys))]
        if any(_overlaps(box, other) for _, other in shapes):
            continue
        colour = tuple(int(v) for v in _bright_colour(rng))
        pen.polygon([(px * scale, py * scale) for px, py in outline], fill=colour)
        shapes.append((category, box))
    return picture.resize((size, size), Image.Resampling.BOX), shapes


def _background(rng: np.random.Generator, size: int) -> Image.Image:
    """A soft, muted mix of four corner colours."""
    import numpy as np
    from PIL import Image

    corners = rng.integers(40, 140, (2, 2, 3), dtype=np.uint8)
    return Image.fromarray(corners).resize((size, size), Image.Resampling.BICUBIC)


def _bright_colour(rng: np.random.Generator) -> tuple[float, float, float]:
    import colorsys

    red, green, blue = colorsys.hsv_to_rgb(
        rng.uniform(0, 1), rng.uniform(0.6, 1), rng.uniform(0.8, 1)
    )
    return red * 255, green * 255, blue * 255


def _overlaps(a: Sequence[float], b: Sequence[float], margin: float = 2) -> bool:
    return (
        a[0] < b[2] + margin
        and b[0] < a[2] + margin
        and a[1] < b[3] + margin
        and b[1] < a[3] + margin
    )


def _regular(corners: int) -> Callable[[float, float, float, float], list[Point]]:
    """A regular polygon around (x, y), its first corner at `angle`."""

    def outline(x: float, y: float, radius: float, angle: float) -> list[Point]:
        turns = [angle + 2 * math.pi * k / corners for k in range(corners)]
        return [(x + radius * math.cos(t), y + radius * math.sin(t)) for t in turns]

    return outline


OUTLINES = {"circle": _regular(64), "square": _regular(4), "triangle": _regular(3)}


def main(argv: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(
        prog="python -m rtdetr_slurm.data.sample", description=__doc__.split("\n")[0]
    )
    parser.add_argument("folder", type=Path, help="where to write it")
    parser.add_argument("--train", type=int, default=400, help="training images (%(default)s)")
    parser.add_argument("--val", type=int, default=100, help="validation images (%(default)s)")
    parser.add_argument("--size", type=int, default=160, help="side in pixels (%(default)s)")
    parser.add_argument("--seed", type=int, default=0, help="another seed, another set")
    options = parser.parse_args(argv)
    write_sample(options.folder, options.train, options.val, options.size, options.seed)
    print(
        f"{options.folder}: {options.train} training and {options.val} validation images of "
        f"{', '.join(CLASSES)} (category ids 1 to {len(CLASSES)})"
    )


if __name__ == "__main__":
    main()
