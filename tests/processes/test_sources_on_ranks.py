"""Two ranks open the sources of an action."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
from engine_support import Workspace, session_of, workspace  # noqa: F401
from ranks import run_ranks

from rtdetr_slurm.data.coco import read_annotations
from rtdetr_slurm.engine.datasets.sources import open_sources
from rtdetr_slurm.engine.process.distributed import Context, barrier
from rtdetr_slurm.errors import RequestError
from rtdetr_slurm.spec import load_spec

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
            path = source.image_dir.parent / "annotations.json"
            assert source.annotations == read_annotations(path), kind
    barrier()
    if context.rank == 0:  # what one node has and another lacks
        (elsewhere / "images").rename(elsewhere / "gone")
    with pytest.raises(RequestError, match=r"image folder .*images .*does not exist"):
        open_sources(session)


def test_one_rank_reads_for_all(workspace: Workspace) -> None:
    run_ranks(open_on_rank, workspace.spec_file(), workspace.data / "val")
