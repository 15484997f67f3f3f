"""Which copies on nodes are refused before anything is queued."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from rtdetr_slurm.model_check import InvalidInput
from rtdetr_slurm.plan.make import frozen_spec, make_plan
from rtdetr_slurm.plan.sources import staged_fields
from rtdetr_slurm.site.profile import Site
from rtdetr_slurm.spec import load_spec
from rtdetr_slurm.submission.staging import check_local_copy

SPEC = """\
job:
  local_copy: true
dataset:
  num_classes: 5
  train_data_sources:
  - {image_dir: IMAGES, json_file: /data/a.json}
  val_data_sources: {image_dir: /data/val, json_file: /data/val.json}
"""


def notes(folder: Path, images: str = "s3://b/images.tar", **values: Any) -> tuple[str, ...]:
    given = {"name": "here", "image": "/t.sif", "scratch": "/scratch/$USER"}
    site = Site.model_validate({**given, **values})
    path = folder / "spec.yaml"
    path.write_text(SPEC.replace("IMAGES", images))
    loaded = load_spec(path, [], "train")
    spec = frozen_spec(loaded, run_dir=Path("/runs/1"), cwd=folder)
    fields = staged_fields(spec, loaded.actions, site.engine_of)
    plan = make_plan(loaded, spec, site, run_dir=Path("/runs/1"), copied=fields)
    return check_local_copy(loaded, plan, site)


def test_copies_need_a_folder_and_a_container(tmp_path: Path) -> None:
    assert notes(tmp_path) == ()
    with pytest.raises(InvalidInput, match=r"spec\.yaml:2:15: .*names no folder for copies"):
        notes(tmp_path, scratch=None)
    with pytest.raises(InvalidInput, match=r"spec\.yaml:2:15: .*train runs without a container"):
        notes(tmp_path, image=None, container="none")


def test_where_nothing_is_brought_it_is_said_that_nothing_is_copied(tmp_path: Path) -> None:
    for scratch in ("/scratch", None):
        [said] = notes(tmp_path, "/data/images", scratch=scratch)
        assert "no images are fetched or unpacked" in said
