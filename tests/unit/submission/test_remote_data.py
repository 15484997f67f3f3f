"""Data sets in an object store, for a spec to begin with."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from coco_support import coco
from stores import bucket, server, store

from rtdetr_slurm.cli.main import main
from rtdetr_slurm.plan.staging import Store
from rtdetr_slurm.spec import load_spec

__all__ = ["bucket", "server", "store"]


@pytest.fixture
def site(tmp_path: Path, store: Store) -> str:
    path = tmp_path / "site.yaml"
    path.write_text(
        f"scheduler: local\nrun_root: {tmp_path}/runs\ns3: {{endpoint_url: {store.endpoint_url}}}\n"
    )
    return str(path)


def test_a_spec_for_a_data_set_in_s3_names_its_addresses(
    tmp_path: Path, site: str, bucket: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    bucket("set/train/annotations.json", json.dumps(coco()))
    bucket("set/train/images.tar.zst", b"")
    bucket("set/eval/annotations.json", json.dumps(coco()))
    bucket("set/eval/images/a.jpg", b"")
    spec = tmp_path / "train.yaml"
    assert main(["init", "s3://data/set/", "--site", site, "-o", str(spec)]) == 0
    dataset = load_spec(spec).experiment.dataset
    assert dataset.train_data_sources is not None
    assert dataset.val_data_sources is not None
    assert dataset.train_data_sources[0].image_dir == "s3://data/set/train/images.tar.zst"
    assert dataset.val_data_sources.json_file == "s3://data/set/eval/annotations.json"
    assert dataset.val_data_sources.image_dir == "s3://data/set/eval/images"
    assert dataset.num_classes == 4


def test_what_is_missing_is_named(site: str, bucket: Any, capsys: Any) -> None:
    assert main(["init", "s3://data/nothing", "--site", site]) == 2
    assert "s3://data/nothing/train/annotations.json" in capsys.readouterr().err
    bucket("bare/train/annotations.json", json.dumps(coco()))
    assert main(["init", "s3://data/bare", "--site", site]) == 2
    assert "s3://data/bare/train: it has annotations.json, but no images" in capsys.readouterr().err
