"""Two ranks open the sources of an action."""

from __future__ import annotations

import os
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from engine_support import Workspace, session_of, workspace  # noqa: F401
from ranks import run_ranks
from table_support import table_of as table_of_boxes

from rtdetr_slurm.data.coco import read_annotations
from rtdetr_slurm.engine.datasets.sharing import share_table
from rtdetr_slurm.engine.datasets.sources import open_sources, table_of
from rtdetr_slurm.engine.process import distributed
from rtdetr_slurm.engine.process.distributed import Context, barrier, gather_objects
from rtdetr_slurm.errors import RequestError
from rtdetr_slurm.spec import load_spec
from rtdetr_slurm.vision.table import Table

# ruff: noqa: F811  (pytest fixtures are arguments of the name they are imported by)


def open_on_rank(context: Context, spec: Path, elsewhere: Path) -> None:
    opened: list[str] = []
    sys.addaudithook(lambda event, args: opened.append(str(args[0])) if event == "open" else None)
    session = session_of(load_spec(spec, ["train.num_gpus=2"], action="train"), context)
    sources = open_sources(session)
    read = [path for path in opened if path.endswith("annotations.json")]
    assert len(read) == (0 if context.rank else 2)
    for kind, group in sources.items():
        for source in group:
            assert (source.read is None) == bool(context.rank)
            expected = read_annotations(source.annotations)
            table = table_of(session, [source])
            assert [table.name(image) for image in range(len(table))] == expected.file_names, kind
            assert len(table.boxes) == expected.num_boxes
    joined = table_of(session, [*sources["train"], *sources["val"]])
    places = gather_objects(os.fstat(joined.mapped.file).st_ino)
    assert len({*places}) == (0 if context.rank else 1)
    barrier()
    if context.rank == 0:  # what one node has and another lacks
        (elsewhere / "images").rename(elsewhere / "gone")
    with pytest.raises(RequestError, match=r"image folder .*images .*does not exist"):
        open_sources(session)


def test_one_rank_reads_for_all(workspace: Workspace) -> None:
    run_ranks(open_on_rank, workspace.spec_file(), workspace.data / "val")


def share_over_nodes(context: Context) -> None:
    """Each rank is the first one of a node."""
    alone = replace(context, local_rank=0, local_world_size=1)
    distributed.PIECE = 1000
    expected = table_of_boxes((0, 1, (1, 2, 30, 40)), (2, 2, (5, 6, 7, 8)), images=500)
    given = [] if context.rank else [expected]  # nothing is built elsewhere
    table = share_table(alone, given.pop)
    for name, array in expected.arrays.items():
        assert np.array_equal(table.arrays[name], array), name
    assert (table.folders, table.classes) == (expected.folders, expected.classes)
    places = gather_objects(os.fstat(table.mapped.file).st_ino)
    assert len({*places}) == (0 if context.rank else 2)

    def refused() -> Table:
        raise RequestError("no table")

    with pytest.raises(RequestError, match="no table"):
        share_table(context, refused)


def test_each_node_has_a_table_once() -> None:
    run_ranks(share_over_nodes)
