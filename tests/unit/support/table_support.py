"""A small data set as a table."""

from __future__ import annotations

from pathlib import Path

import pytest

from rtdetr_slurm.data.coco import Source, read_annotations
from rtdetr_slurm.data.sample import write_sample
from rtdetr_slurm.vision.table import Table, open_table


def make_table(*folders: Path) -> Table:
    sources = [Source(f / "images", read_annotations(f / "annotations.json")) for f in folders]
    return open_table(sources, 4)


@pytest.fixture
def table(tmp_path: Path) -> Table:
    """Ten images of 96 pixels."""
    write_sample(tmp_path, train=10, val=7, size=96)
    return make_table(tmp_path / "train")


def break_image(table: Table, image: int) -> str:
    """Make an image undecodable; its path."""
    path = table.path(image)
    path.write_bytes(path.read_bytes()[:100])
    return str(path)
