"""What the ranks do about their data before the first step."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import pytest
from engine_support import TRAIN_IMAGES, Workspace, session_of, workspace  # noqa: F401
from ranks import run_ranks

from rtdetr_slurm.data.coco import read_annotations
from rtdetr_slurm.engine.datasets.sources import open_sources, open_training_data
from rtdetr_slurm.engine.process.distributed import Context, barrier
from rtdetr_slurm.errors import RequestError
from rtdetr_slurm.spec import load_spec
from rtdetr_slurm.vision.samples import open_image, training_boxes

# ruff: noqa: F811  (pytest fixtures are arguments of the name they are imported by)


def change(workspace: Workspace, split: str, **keys: Any) -> None:
    """Set keys of every second annotation."""
    path = workspace.data / split / "annotations.json"
    content = json.loads(path.read_text())
    for entry in content["annotations"][::2]:
        entry |= keys
    path.write_text(json.dumps(content))


def open_on_rank(context: Context, spec: Path, elsewhere: Path) -> None:
    opened: list[str] = []
    sys.addaudithook(lambda event, args: opened.append(str(args[0])) if event == "open" else None)
    session = session_of(load_spec(spec, ["train.num_gpus=2"], action="train"), context)
    sources = open_sources(session)
    read = [path for path in opened if path.endswith("annotations.json")]
    assert len(read) == (0 if context.rank else 2)
    for kind, group in sources.items():
        for source in group:
            path = source.image_dir.parent / "annotations.json"
            assert source.annotations == read_annotations(path), kind
    barrier()
    if context.rank == 0:  # what one node has and another lacks
        (elsewhere / "images").rename(elsewhere / "gone")
    with pytest.raises(RequestError, match=r"image folder .*images .*does not exist"):
        open_sources(session)


def test_one_rank_reads_for_all(workspace: Workspace) -> None:
    run_ranks(open_on_rank, workspace.spec_file(), workspace.data / "val")


def test_the_count_that_is_shown_is_the_one_that_training_uses(workspace: Workspace) -> None:
    change(workspace, "train", bbox=[75.25, 3, 20, 5.5], iscrowd="false")  # the image ends at 80
    path = workspace.data / "train" / "annotations.json"
    content = json.loads(path.read_text())
    for number, entry in enumerate(content["annotations"][::2]):
        entry["bbox"][0] += number % 7  # less and less of it is inside
    path.write_text(json.dumps(content))
    session = workspace.session("dataset.workers=1")
    sources = open_sources(session)
    table = open_training_data(session, sources["train"], seed=0).table
    used = sum(len(training_boxes(table, image, 80, 80)[0]) for image in range(TRAIN_IMAGES))
    lines = [line["message"] for line in workspace.status()]
    (note,) = [line for line in lines if "are trained on; not:" in line]
    assert 0 < used < len(table.labels)
    assert f"{used} of {len(table.labels)} boxes are trained on; not: " in note


def test_an_image_of_another_size_is_bad(workspace: Workspace) -> None:
    session = workspace.session()
    data = open_training_data(session, open_sources(session)["train"], seed=0)
    data.table.sizes[3] = 160, 80
    assert "is 80 x 80 pixels, but annotated as 160 x 80" in str(open_image(data.table, 3))
    assert "is 80 x 80" in str(data.loader.dataset[0, 3].bad[0])
    data.table.sizes[3] = 0, 0  # not given
    assert data.loader.dataset[0, 3].bad == ()
