"""From a data set of another tool to COCO's files: which tool, what it has, and what is written."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from rtdetr_slurm.data.convert import FORMS
from rtdetr_slurm.data.convert.classes import number_classes
from rtdetr_slurm.data.convert.coco import is_coco, read_coco
from rtdetr_slurm.data.convert.cvat import is_cvat, read_cvat
from rtdetr_slurm.data.convert.found import Change, FoundSplit, Report
from rtdetr_slurm.data.convert.label_studio import is_label_studio, read_label_studio
from rtdetr_slurm.data.convert.labelme import is_labelme, read_labelme
from rtdetr_slurm.data.convert.parts import hold_out
from rtdetr_slurm.data.convert.settle import settle
from rtdetr_slurm.data.convert.voc import is_voc, read_voc
from rtdetr_slurm.data.convert.write import write_splits
from rtdetr_slurm.data.convert.yolo import is_yolo, read_yolo
from rtdetr_slurm.errors import RequestError
from rtdetr_slurm.spec.addresses import is_packed


@dataclass(frozen=True)
class _Reader:
    """How a kind of data set is told and read.

    Attributes:
        recognises: whether a folder or file is one.
        read: its splits, from it and the folder that its images are below.
    """

    recognises: Callable[[Path], bool]
    read: Callable[[Path, Path, Report], list[FoundSplit]]


_READERS: Mapping[str, _Reader] = {
    "yolo": _Reader(is_yolo, lambda source, _, report: read_yolo(source, report)),
    "voc": _Reader(is_voc, read_voc),
    "cvat": _Reader(is_cvat, read_cvat),
    "coco": _Reader(is_coco, read_coco),
    "labelme": _Reader(is_labelme, read_labelme),
    "label_studio": _Reader(is_label_studio, read_label_studio),
}


@dataclass(frozen=True)
class Converted:
    """What was written.

    Attributes:
        splits: name → numbers of images and of boxes.
        classes: category id → name.
        boxes_of: category id → number of its boxes.
    """

    folder: Path
    form: str
    splits: Mapping[str, tuple[int, int]]
    classes: Mapping[int, str]
    boxes_of: Mapping[int, int]
    changes: Sequence[Change]


def convert(
    source: Path,
    folder: Path,
    *,
    form: str | None = None,
    images: Path | None = None,
    val_share: float | None = None,
) -> Converted:
    """Convert `source` into a new `folder`.

    Args:
        form: one of FORMS; None: whatever it is.
        images: the folder that the images are below; None: that of `source`.
        val_share: of the training images that become a split for validation.

    Raises:
        RequestError: it is nothing that is known, holds no image, or has what nothing can be made
            of: all of that at once, and then nothing is written.
        OSError: `folder` exists or cannot be made.
    """
    if not source.exists():
        raise RequestError(f"{source} does not exist")
    if is_packed(source.name):
        raise RequestError(f"{source} is an archive: unpack it, and convert the folder")
    if folder.absolute().is_relative_to(source.absolute()):
        raise RequestError(f"{folder} is in {source}, which is left as it is; name another folder")
    form = form or _recognised(source)
    if form == "yolo" and images is not None:
        raise RequestError("--images: of YOLO the images are where its YAML file or folders say")
    report = Report()
    below = images or (source if source.is_dir() else source.parent)
    splits = _READERS[form].read(source.absolute(), below.absolute(), report)
    report.check()
    splits = [split for split in splits if split.images]
    if not splits:
        said = "; ".join(map(str, report.changes))
        raise RequestError(
            f"{source}: no image of it could be found{f': {said}' if said else ''}; --images "
            "FOLDER says below which folder they are, unpacked"
        )
    if val_share is not None:
        splits = hold_out(splits, val_share, report)
    for split in splits:
        settle(split, report)
    ids = number_classes(splits, report)
    report.check()
    if not ids:
        raise RequestError(f"{source}: it has no classes, and no boxes")
    write_splits(folder, splits, ids, report)
    return _counted(folder, form, splits, ids, report)


def _recognised(source: Path) -> str:
    for form in FORMS:
        if _READERS[form].recognises(source):
            return form
    known = "; ".join(f"--from {form} ({title})" for form, title in FORMS.items())
    raise RequestError(f"{source}: it is not clear what this is a data set of. Say it: {known}")


def _counted(
    folder: Path, form: str, splits: Sequence[FoundSplit], ids: Mapping[str, int], report: Report
) -> Converted:
    boxes_of = dict.fromkeys(ids.values(), 0)
    for split in splits:
        for image in split.images:
            for box in image.boxes:
                boxes_of[ids[box.label]] += 1
    return Converted(
        folder=folder,
        form=form,
        splits={
            split.name: (len(split.images), sum(len(image.boxes) for image in split.images))
            for split in splits
        },
        classes={number: name for name, number in ids.items()},
        boxes_of=boxes_of,
        changes=report.changes,
    )
