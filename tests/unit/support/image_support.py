"""Images without annotations."""

from __future__ import annotations

from array import array
from pathlib import Path

from rtdetr_slurm.data.coco import CocoAnnotations, Source
from rtdetr_slurm.vision.table import Table, build_table


def table(sources: dict[str, list[str]]) -> Table:
    listed = []
    for place, names in sources.items():
        none = array("q", bytes(8 * len(names)))
        ids = array("q", range(1, len(names) + 1))
        annotations = CocoAnnotations(
            Path(place), image_ids=ids, file_names=names, widths=none, heights=none
        )
        listed.append(Source(Path(place), annotations))
    return build_table(listed, {})
