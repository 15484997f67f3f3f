"""A part of a data set that has only one, for validation. Standard library only."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

from rtdetr_slurm.data.convert.found import FoundImage, FoundSplit, Report
from rtdetr_slurm.errors import RequestError

_OPTION = "--val-share"


def hold_out(splits: Sequence[FoundSplit], share: float, report: Report) -> list[FoundSplit]:
    """Put a share of the training images into a split `val`.

    Which ones is a matter of their names alone: what is held out today is so when images are added.

    Args:
        share: between 0 and 1.

    Raises:
        RequestError: there is a validation set already or nothing to train on, or one of the two
            would be empty.
    """
    if not 0 < share < 1:
        raise RequestError(f"{_OPTION} {share:g}: allowed is a share of the images, such as 0.1")
    by_name = {split.name: split for split in splits}
    if "val" in by_name or "train" not in by_name:
        raise RequestError(f"{_OPTION}: the data set has {', '.join(by_name)}, and not train alone")
    train = by_name["train"]
    held_out = [image for image in train.images if _draw(image) < share]
    kept = [image for image in train.images if _draw(image) >= share]
    if not held_out or not kept:
        raise RequestError(
            f"{_OPTION} {share:g}: of {len(train.images)} images that leaves none to "
            f"{'train on' if held_out else 'validate with'}"
        )
    for image in held_out:
        report.changed("image put from train into val", image.file)
    train.images = kept
    return [*splits, FoundSplit("val", held_out, train.classes)]


def _draw(image: FoundImage) -> float:
    """Evenly in 0..1."""
    digest = hashlib.sha256(image.file.name.encode(errors="surrogateescape")).digest()
    return int.from_bytes(digest[:8], "big") / 2**64
