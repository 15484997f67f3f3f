"""What the label files and pictures of images are called: a rule by which no two are the same."""

from __future__ import annotations

from collections import defaultdict
from pathlib import Path, PurePosixPath
from typing import NamedTuple

from rtdetr_slurm.data.archives import archive_stem, is_archive
from rtdetr_slurm.data.image_sources import IMAGE_SUFFIXES
from rtdetr_slurm.vision.table import Table

LABELS, PICTURES = "labels", "images_annotated"
"""TAO's names of the folders."""


class OutputFiles(NamedTuple):
    """The files that are written for an image, relative to the results folder."""

    label: str
    picture: str


def name_outputs(table: Table, *, by_sequence: bool) -> list[OutputFiles]:
    """The files of each image, by its position.

    `labels/NAME.txt` and `images_annotated/NAME.EXT`, where NAME.EXT is the image's path below its
    folder, in its archive or below the folder of its list; all of its path where a list names it
    elsewhere. By sequence they are `FOLDER/labels/…` and `FOLDER/images_annotated/…`, where FOLDER
    holds the image: the path's folders, or the name of the source where it has none. A name that
    an image before has already (a.jpg of two sources, or a.jpg and a.png) gets _2, _3 and so on.
    """
    taken: set[PurePosixPath] = set()
    numbers: defaultdict[PurePosixPath, int] = defaultdict(lambda: 1)
    outputs = []
    for image in range(len(table)):
        name = PurePosixPath(table.name(image).lstrip("/"))
        if by_sequence and len(name.parts) == 1:
            name = PurePosixPath(_own_name(Path(table.folders[table.source[image]])), name)
        stem = wanted = name.with_name(name.stem)
        while stem in taken:
            numbers[wanted] += 1
            stem = wanted.with_name(f"{wanted.name}_{numbers[wanted]}")
        taken.add(stem)
        suffix = name.suffix if name.suffix.lower() in IMAGE_SUFFIXES else IMAGE_SUFFIXES[0]
        label, picture = PurePosixPath(f"{stem}.txt"), PurePosixPath(f"{stem}{suffix}")
        if by_sequence:
            files = (label.parent / LABELS / label.name, picture.parent / PICTURES / picture.name)
        else:
            files = (LABELS / label, PICTURES / picture)
        outputs.append(OutputFiles(*map(str, files)))
    return outputs


def _own_name(source: Path) -> str:
    return archive_stem(source) if is_archive(source) else source.name
