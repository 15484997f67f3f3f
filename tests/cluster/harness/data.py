"""Images for the end-to-end tests: real ones where this machine has them, else the sample set."""

from __future__ import annotations

import json
import os
import tarfile
from dataclasses import dataclass
from pathlib import Path

from rtdetr_slurm.data.sample import write_sample

from .machine import REPO, HarnessError

SPLITS = {"train": 64, "val": 16, "test": 16}
"""Images of each: of real ones no more, so that an epoch takes seconds."""


@dataclass(frozen=True)
class Dataset:
    """Folders `train`, `val` and `test`, each with `images/` and `annotations.json` (COCO)."""

    root: Path
    real: bool

    def images(self, split: str) -> Path:
        """Folder of the split's images."""
        return self.root / split / "images"

    def annotations(self, split: str) -> Path:
        """The split's COCO file."""
        return self.root / split / "annotations.json"

    @property
    def num_classes(self) -> int:
        """Largest category id + 1, as specs want it."""
        categories = json.loads(self.annotations("train").read_text())["categories"]
        return max(int(category["id"]) for category in categories) + 1


def prepare_dataset(target: Path) -> Dataset:
    """Put the images to train on below `target`.

    Raises:
        HarnessError: RTDETR_TEST_BCCD names something that is not that set.
    """
    source = find_real_data()
    if source is not None:
        return Dataset(unpack_real_data(source, target), real=True)
    write_sample(target, train=SPLITS["train"], val=SPLITS["val"])
    (target / "test").symlink_to("val")
    return Dataset(target, real=False)


def find_real_data() -> Path | None:
    """The BCCD set: $RTDETR_TEST_BCCD, or shared/data/bccd beside the repository; None if absent.

    Raises:
        HarnessError: the variable names something that is not that set.
    """
    named = os.environ.get("RTDETR_TEST_BCCD")
    path = Path(named) if named else REPO.parent / "shared" / "data" / "bccd"
    if (path / "train" / "annotations.json").is_file():
        return path
    if named:
        raise HarnessError(f"RTDETR_TEST_BCCD={named}: no train/annotations.json in it")
    return None


def unpack_real_data(source: Path, target: Path) -> Path:
    """Unpack the first images of `source`/<split>/images.tar.gz into `target`/<split>/images, with
    their annotations beside them."""
    for split, count in SPLITS.items():
        folder = target / split
        folder.mkdir(parents=True)
        content = json.loads((source / split / "annotations.json").read_text())
        images = content["images"][:count]
        ids, names = ({image[key] for image in images} for key in ("id", "file_name"))
        boxes = [one for one in content["annotations"] if one["image_id"] in ids]
        chosen = {**content, "images": images, "annotations": boxes}
        (folder / "annotations.json").write_text(json.dumps(chosen))
        with tarfile.open(source / split / "images.tar.gz") as archive:
            wanted = [one for one in archive if Path(one.name).name in names]
            archive.extractall(folder, members=wanted, filter="data")
    return target
