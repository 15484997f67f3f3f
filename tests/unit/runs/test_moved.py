"""A run that was copied elsewhere is read where it is."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
from launch_support import local_stage, make_run

from rtdetr_slurm.contract import MOVED_JSON, RUN_JSON
from rtdetr_slurm.errors import RequestError
from rtdetr_slurm.runs.moved import Moved
from rtdetr_slurm.runs.run import open_run


def test_its_paths_are_those_of_the_copy_and_its_record_stays(tmp_path: Path) -> None:
    outside = tmp_path / "mine" / "train"
    run = make_run(tmp_path / "runs", local_stage(outside))
    copy = tmp_path / "cache" / run.id
    shutil.copytree(run.path, copy)
    before = (copy / RUN_JSON).read_bytes()
    moved = Moved({str(run.path): ".", str(outside): "outside/1"})
    (copy / MOVED_JSON).write_text(moved.text())
    shutil.rmtree(run.path)

    found = open_run(copy)
    assert found.plan.stages[0].results_dir == str(copy / "outside" / "1")
    assert str(tmp_path / "runs") not in json.dumps(found.plan.to_json())
    assert (copy / RUN_JSON).read_bytes() == before


@pytest.mark.parametrize("folders", [{"/a": "../b"}, {"/a": "/b"}, {"a": "b"}])
def test_no_folder_of_a_copy_is_outside_of_it(tmp_path: Path, folders: dict[str, str]) -> None:
    run = make_run(tmp_path, local_stage(tmp_path / "r"))
    (run.path / MOVED_JSON).write_text(json.dumps({"folders": folders, "schema_version": 1}))
    with pytest.raises(RequestError, match=r"moved\.json.*is no folder of a copy"):
        open_run(run.path)
