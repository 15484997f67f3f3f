"""A sheet of annotated images for a person to look at. Pillow is loaded with the first of them."""

from __future__ import annotations

import io
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

from rtdetr_slurm.data.check_images import spread
from rtdetr_slurm.data.coco import CocoAnnotations, Source
from rtdetr_slurm.figures import ShownBox, figure

if TYPE_CHECKING:
    from rtdetr_slurm.markup import Markup

PICTURES = 24
"""Images of a source that are shown at most."""
SIDE = 480
"""Their longer side in pixels at most."""
QUALITY = 80
"""Of their JPEG files."""
BOXES = 100
"""Boxes that are drawn in one image at most."""


def sample_pictures(labels: Sequence[str], sources: Sequence[Source]) -> Iterator[Markup]:
    """Figures of images of each source, without those that cannot be decoded.

    Args:
        labels: what each source is called.
    """
    for label, source in zip(labels, sources, strict=True):
        if source.image_dir is None:
            continue
        boxes: dict[int, list[int]] = {
            image: [] for image in chosen_images(source.annotations, PICTURES)
        }
        for number, image in enumerate(source.annotations.image_index):
            if image in boxes:
                boxes[image].append(number)
        for image, here in boxes.items():
            if (picture := _picture(label, source, image, here)) is not None:
                yield picture


def chosen_images(annotations: CocoAnnotations, most: int) -> list[int]:
    """Images, by their positions, in which each class is seen, the rarest first; and others from
    everywhere in the file."""
    boxes_of: dict[int, list[int]] = {}
    for image, category in zip(annotations.image_index, annotations.category_ids, strict=True):
        boxes_of.setdefault(category, []).append(image)
    chosen: dict[int, None] = {}
    for images in sorted(boxes_of.values(), key=len):
        if not any(image in chosen for image in images):
            chosen[images[0]] = None
    for image in spread(range(annotations.num_images), most):
        chosen.setdefault(image)
    return [*chosen][:most]


def _picture(label: str, source: Source, image: int, here: Sequence[int]) -> Markup | None:
    from PIL import Image

    from rtdetr_slurm.data.pixels import BadImage, open_image_file

    read = source.annotations
    name = read.file_names[image]
    opened = open_image_file(source.folder / name)
    decoded = opened if isinstance(opened, BadImage) else opened.decode()
    if isinstance(decoded, BadImage):
        return None
    scale = min(1.0, SIDE / max(decoded.size))
    width, height = (max(1, round(side * scale)) for side in decoded.size)
    file = io.BytesIO()
    decoded.resize((width, height), Image.Resampling.BOX).save(file, "JPEG", quality=QUALITY)
    every = [_box(read, number, scale) for number in here[:BOXES]]
    caption = f"{label}: {name}, {len(here)} boxes"
    drawn = [one for one in every if one.box[2] >= 0 and one.box[3] >= 0]
    return figure(file.getvalue(), (width, height), drawn, name, caption, written=("truth",))


def _box(read: CocoAnnotations, number: int, scale: float) -> ShownBox:
    left, top, width, height = (side * scale for side in read.boxes[4 * number : 4 * number + 4])
    text = read.categories[read.category_ids[number]]
    if read.crowds[number]:
        return ShownBox((left, top, width, height), "missed", f"{text}, crowd region")
    return ShownBox((left, top, width, height), "truth", text)
